from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from gateway.core.decision import Decision, Obligation
from gateway.core.ports.pipeline import EngineFailure
from gateway.core.reasons import REASONS, Reason, Refusal
from gateway.policy.contract import document_json, parse_answer
from gateway.policy.decider import Decider

YES = {"effect": "allow", "reasons": ["policy_ok"]}


class Scripted:
    """An engine that answers what it is told, and counts."""

    def __init__(self, answer: Callable[[Mapping[str, Any]], object]) -> None:
        self.version = "v1"
        self.calls = 0
        self.closed = False
        self._answer = answer

    in_process = False
    reads: tuple[tuple[str, ...], ...] = ((),)
    reason_texts: Mapping[str, Reason] = MappingProxyType({})

    async def evaluate(self, document: Mapping[str, Any]) -> object:
        self.calls += 1
        answer = self._answer(document)
        if isinstance(answer, BaseException):
            raise answer
        return await answer if asyncio.iscoroutine(answer) else answer

    async def close(self) -> None:
        self.closed = True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_full_answer_becomes_a_decision() -> None:
    raw = {**YES, "obligations": [{"kind": "mask_json", "fields": ["iban"]}], "cache_s": 60}
    decision = parse_answer(raw)
    assert decision == Decision("allow", ("policy_ok",), (Obligation("mask_json", {"fields": ["iban"]}),), 60)
    with pytest.raises(TypeError):
        decision.obligations[0].params["fields"] = []  # type: ignore[index,union-attr]


def test_no_answer_is_undefined_and_not_malformed() -> None:
    assert parse_answer(None) == Refusal("policy_undefined")


@pytest.mark.parametrize(
    "raw",
    [
        True,
        "allow",
        [],
        {},
        {"effect": "allow"},
        {"reasons": ["policy_ok"]},
        {**YES, "effect": "Allow"},
        {**YES, "effect": ["allow"]},
        {**YES, "effect": True},
        {**YES, "reasons": []},
        {**YES, "reasons": "policy_ok"},
        {**YES, "reasons": ["Policy OK"]},
        {**YES, "reasons": ["policy_ok", None]},
        {**YES, "reasons": ["policy_ok\n"]},
        {**YES, "reasons": ["policy_ok"] * 33},
        {**YES, "why": "because"},
        {**YES, 1: 2},
        {**YES, "obligations": {}},
        {**YES, "obligations": None},
        {**YES, "obligations": ["no_store"]},
        {**YES, "obligations": [{}]},
        {**YES, "obligations": [{"kind": ""}]},
        {**YES, "obligations": [{"kind": 1}]},
        {**YES, "obligations": [{"kind": "no_store"}] * 33},
        {**YES, "cache_s": True},
        {**YES, "cache_s": -1},
        {**YES, "cache_s": 61},
        {**YES, "cache_s": 1.5},
        {**YES, "cache_s": "1"},
        {**YES, "cache_s": None},
        {**YES, "cache_s": math.nan},
        {**YES, "cache_s": math.inf},
    ],
)
def test_whatever_does_not_fit_the_contract_is_malformed(raw: object) -> None:
    found = parse_answer(raw)
    assert isinstance(found, Refusal)
    assert found.reason == "policy_malformed"


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert parse_answer({**YES, "cache_s": 5.0}) == Decision("allow", ("policy_ok",), cache_s=5)


@pytest.mark.parametrize("reason", ["policy_error", "policy_unavailable", "policy_timeout", "policy_malformed"])
async def test_a_failure_of_the_engine_is_a_refusal_that_the_gateway_knows(reason: str) -> None:
    found = await Decider(Scripted(lambda _: EngineFailure(reason, "authz.rego:3"))).decide({})
    assert found == Refusal(reason, "authz.rego:3")
    assert reason in REASONS


async def test_an_engine_that_hangs_is_refused_at_the_deadline() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await Decider(Scripted(lambda _: asyncio.sleep(30)), 0.03).decide({}) == Refusal("policy_timeout")
    assert loop.time() - started < 1


async def test_a_bug_in_an_engine_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        await Decider(Scripted(lambda _: ZeroDivisionError())).decide({})


async def test_nothing_is_remembered_unless_the_policy_says_so() -> None:
    engine = Scripted(lambda _: YES)
    decider = Decider(engine)
    for _ in range(3):
        assert isinstance(await decider.decide({"now": 1}), Decision)
    assert engine.calls == 3


async def test_an_answer_is_remembered_for_the_same_document_at_another_time_and_no_longer_than_it_says() -> None:
    engine, clock = Scripted(lambda _: {**YES, "cache_s": 10}), Clock()
    decider = Decider(engine, clock=clock)
    first = await decider.decide({"a": 1, "b": {"x": 1, "y": 2}, "now": 1})
    clock.now += 9.9
    assert await decider.decide({"a": 1, "b": {"x": 1, "y": 2}, "now": 2}) is first
    assert engine.calls == 1
    clock.now += 0.2
    await decider.decide({"a": 1, "b": {"x": 1, "y": 2}, "now": 3})
    assert engine.calls == 2


async def test_an_answer_for_one_service_is_never_given_for_another() -> None:
    engine = Scripted(lambda _: {**YES, "cache_s": 60})
    decider = Decider(engine)
    for name in ("a", "b", "a", "b"):
        await decider.decide({"service": {"name": name}, "now": 1})
    assert engine.calls == 2


async def test_a_new_bundle_forgets_what_the_old_one_said() -> None:
    engine = Scripted(lambda _: {**YES, "cache_s": 60})
    decider = Decider(engine)
    await decider.decide({})
    engine.version = "v2"
    await decider.decide({})
    engine.version = "v1"
    await decider.decide({})
    assert engine.calls == 3
    assert decider.version == "v1"


async def test_an_answer_given_while_the_bundle_changed_is_not_remembered() -> None:
    def change(_: Mapping[str, Any]) -> object:
        engine.version += "'"
        return {**YES, "cache_s": 60}

    engine = Scripted(change)
    decider = Decider(engine)
    await decider.decide({})
    await decider.decide({})
    assert engine.calls == 2


async def test_the_memory_is_bounded_and_keeps_what_was_used_last() -> None:
    engine = Scripted(lambda _: {**YES, "cache_s": 60})
    decider = Decider(engine, cache_size=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        await decider.decide({"name": name})
    assert engine.calls == 4


async def test_a_refusal_is_never_remembered() -> None:
    answers = iter([None, {"effect": "?"}, EngineFailure("policy_error"), YES])
    decider = Decider(Scripted(lambda _: next(answers)))
    found = [await decider.decide({}) for _ in range(4)]
    assert [getattr(entry, "reason", "yes") for entry in found] == [
        "policy_undefined",
        "policy_malformed",
        "policy_error",
        "yes",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", object(), {1, 2}, b"x"])
async def test_a_document_that_is_no_json_is_an_error_of_the_policy_stage(value: object) -> None:
    with pytest.raises(EngineFailure, match="policy_error"):
        document_json({"a": value})


async def test_closing_closes_the_engine() -> None:
    engine = Scripted(lambda _: YES)
    await Decider(engine).close()
    assert engine.closed
