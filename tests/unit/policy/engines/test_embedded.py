"""The embedded engine: OPA's answers, and an event loop that goes on whatever an evaluation does."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.core.ports.pipeline import EngineFailure
from gateway.core.reasons import Refusal
from gateway.policy.bundle.loader import load
from gateway.policy.bundle.model import Bundle
from gateway.policy.decider import Decider
from gateway.policy.engines import embedded
from gateway.policy.engines.compiled_policy import EvaluationCancelled
from gateway.policy.engines.embedded import EmbeddedEngine
from gateway.policy.engines.opa_library import library

LONG = "decision := count([1 | some a in input.n; some b in input.n; a == b])"


def bundle(folder: Path, body: str, data: object = None) -> Bundle:
    (folder / "authz.rego").write_text(f"package gateway.authz\n\n{body}\n")
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/data.json").write_text(json.dumps(data or {}))
    return load(folder, {})


async def test_sets_and_objects_come_back_as_json(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, 'decision := {"a": {3, 1}, "b": input.x, "c": null}'))
    assert await engine.evaluate({"x": "é"}) == {"a": [1, 3], "b": "é", "c": None}
    assert await engine.evaluate({"x": 1}) == {"a": [1, 3], "b": 1, "c": None}
    await engine.close()
    with pytest.raises(EngineFailure, match="policy_unavailable"):
        await engine.evaluate({"x": 1})


async def test_undefined_is_none(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, "decision := input.x"))
    assert await engine.evaluate({}) is None
    assert await engine.evaluate({"x": "<undefined>"}) == "<undefined>"


async def test_one_request_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, "seen contains input.x\n\ndecision := seen"))
    assert [await engine.evaluate({"x": number}) for number in (1, 2)] == [[1], [2]]
    assert await engine.evaluate({}) == []


async def test_a_builtin_that_fails_is_an_error_that_names_the_place_and_no_value(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, 'decision := net.cidr_contains("10.0.0.0/8", input.ip)'))
    with pytest.raises(EngineFailure) as failure:
        await engine.evaluate({"ip": "canary"})
    assert (failure.value.reason, failure.value.detail) == ("policy_error", "authz.rego:3")
    assert await engine.evaluate({"ip": "10.1.1.1"}) is True


async def test_rules_that_contradict_each_other_are_an_error(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, "decision := 1 if input.a\n\ndecision := 2 if input.b"))
    answer = await Decider(engine).decide({"a": 1, "b": 1})
    assert isinstance(answer, Refusal)
    assert answer.reason == "policy_error"
    assert answer.detail.startswith("authz.rego:")


async def test_an_evaluation_past_the_deadline_is_cancelled_and_refused_while_the_loop_goes_on(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, LONG), deadline_s=0.2)
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            started = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - started)

    beating = asyncio.create_task(beat())
    started = time.monotonic()
    decider = Decider(engine, 0.2)
    answers = await asyncio.gather(*(decider.decide({"n": list(range(3_000))}) for _ in range(3)))
    beating.cancel()
    assert answers == [Refusal("policy_timeout")] * 3
    assert time.monotonic() - started < 10
    assert longest < 0.15
    assert await engine.evaluate({"n": [1]}) == 1
    assert library().statistics()["evaluations"] == 0


async def test_a_regular_expression_over_a_large_text_keeps_nobody_waiting(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, 'decision := regex.match("(x+x+)+y", input.text)'), deadline_s=10)
    slow = asyncio.create_task(engine.evaluate({"text": "x" * (4 << 20)}))
    turns = 0
    while not slow.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert await slow is False
    assert turns > 20


async def test_a_short_evaluation_runs_in_the_loop_and_a_large_input_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, "decision := count(input.x)"), deadline_s=5)
    beside = list[int]()
    run = engine._beside

    async def counted(text: bytes, until: float) -> object:
        beside.append(len(text))
        return await run(text, until)

    monkeypatch.setattr(engine, "_beside", counted)
    assert await engine.evaluate({"x": "y" * 100}) == 100
    assert beside == []
    assert await engine.evaluate({"x": "y" * embedded.IN_LOOP_BYTES}) == embedded.IN_LOOP_BYTES
    assert len(beside) == 1


@pytest.mark.parametrize(("seconds", "in_the_loop"), [(0.01, [0, 65, 194]), (0.0, list(range(300)))])
async def test_what_is_slow_beside_the_loop_too_stays_out_of_it_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, in_the_loop: list[int]
) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, "decision := input.x"), deadline_s=5)
    here, now = list[int](), [0.0]

    def cancelled(text: bytes, budget_s: float) -> object:
        here.append(json.loads(text)["x"])
        raise EvaluationCancelled

    async def beside(text: bytes, until: float) -> object:
        if here[-1] == json.loads(text)["x"]:
            now[0] += seconds
        return json.loads(text)["x"]

    monkeypatch.setattr(embedded, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(embedded, "IN_LOOP_S", 0.005)
    monkeypatch.setattr(engine._bundle.policy, "evaluate_here", cancelled)
    monkeypatch.setattr(engine, "_beside", beside)
    for number in range(300):
        assert await engine.evaluate({"x": number}) == number
    # Where it is: once, then after 64 beside the loop, then after 128 more.
    assert here == in_the_loop


async def test_what_cannot_be_cancelled_in_time_stays_out_of_the_loop(tmp_path: Path) -> None:
    text = "x" * (32 << 20)
    body = 'decision := count(regex.find_n("(x+x+)+y", data.text, -1)) + input.x'
    engine = EmbeddedEngine(bundle(tmp_path, body, {"text": text}), deadline_s=30)
    assert await engine.evaluate({"x": 1}) == 1
    began, longest, end = time.monotonic(), 0.0, asyncio.create_task(engine.evaluate({"x": 2}))
    while not end.done():
        started = time.monotonic()
        await asyncio.sleep(0.001)
        longest = max(longest, time.monotonic() - started)
    assert await end == 2
    # In the loop, one turn would be the whole evaluation; how long that is depends on the machine.
    assert longest < (time.monotonic() - began) / 2


async def test_a_request_that_is_given_up_ends_its_evaluation(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, LONG), deadline_s=60)
    task = asyncio.create_task(engine.evaluate({"n": list(range(20_000))}))
    while not library().statistics()["evaluations"]:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(300):
        if not library().statistics()["evaluations"]:
            break
        await asyncio.sleep(0.01)
    assert library().statistics()["evaluations"] == 0
    assert await engine.evaluate({"n": [1]}) == 1


async def test_closing_the_engine_ends_what_is_running(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, LONG), deadline_s=60)
    task = asyncio.create_task(engine.evaluate({"n": list(range(20_000))}))
    while not library().statistics()["evaluations"]:
        await asyncio.sleep(0.01)
    await engine.close()
    with pytest.raises(EngineFailure):
        await task


async def test_a_document_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, "decision := 1"))
    for document in ({"x": float("nan")}, {"x": "\ud800"}, {"x": object()}):
        with pytest.raises(EngineFailure, match="policy_error"):
            await engine.evaluate(document)


HOSTILE = {
    "a product of sets": "decision := count({[a, b, c] | some a in input.n; some b in input.n; some c in input.n})",
    "a walk over a large document": "decision := count([p | walk(data.large, [p, _]); walk(data.large, [_, _])])",
    "a range without bounds": "decision := count(numbers.range(1, 1000000000))",
    "a text that doubles": "decision := count(concat(input.s, [input.s | some a in input.n; some b in input.n]))",
    "an array that grows": "decision := count([x | some a in input.n; x := array.concat(input.n, [a]); x[_]; x[_]])",
    "networks of all sizes": 'decision := count(net.cidr_expand("10.0.0.0/8"))',
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_policies_without_end_are_denials_in_time(tmp_path: Path, name: str) -> None:
    large = {str(number): {"a": [number, {"b": number}]} for number in range(2_000)}
    engine = EmbeddedEngine(bundle(tmp_path, HOSTILE[name], {"large": large}), deadline_s=0.1)
    started = time.monotonic()
    answer = await Decider(engine, 0.1).decide({"n": list(range(400)), "s": "s" * 1_000})
    assert answer == Refusal("policy_timeout")
    assert time.monotonic() - started < 10
    await engine.close()
