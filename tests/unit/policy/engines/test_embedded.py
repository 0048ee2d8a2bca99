from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.core.ports.pipeline import EngineFailure
from gateway.core.reasons import Refusal
from gateway.policy.bundle.loader import load
from gateway.policy.bundle.model import Bundle
from gateway.policy.decider import Decider
from gateway.policy.engines.embedded import EmbeddedEngine, RegoError, prepare, syntax


def bundle(folder: Path, body: str) -> Bundle:
    (folder / "authz.rego").write_text(f"package gateway.authz\n\n{body}\n")
    return load(folder, {})


async def test_sets_and_objects_come_back_as_json(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, 'decision := {"a": {3, 1}, "b": input.x, "c": null}'))
    assert await engine.evaluate({"x": "é"}) == {"a": [1, 3], "b": "é", "c": None}
    await engine.close()
    assert await engine.evaluate({"x": 1}) == {"a": [1, 3], "b": 1, "c": None}


async def test_undefined_is_none(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, "decision := input.x"))
    assert await engine.evaluate({}) is None
    assert await engine.evaluate({"x": "<undefined>"}) is None


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
    assert await Decider(engine).decide({"a": 1, "b": 1}) == Refusal("policy_error", "authz.rego:5")


async def test_an_evaluation_that_took_too_long_is_refused(tmp_path: Path) -> None:
    slow = bundle(tmp_path, "decision := count([1 | some a in input.n; some b in input.n; a == b])")
    engine = EmbeddedEngine(slow, deadline_s=0.01)
    assert await Decider(engine, 0.01).decide({"n": list(range(400))}) == Refusal("policy_timeout")
    assert await engine.evaluate({"n": [1]}) == 1


async def test_another_thread_gets_an_engine_of_its_own(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, "decision := input.x"), deadline_s=5)
    assert await engine.evaluate({"x": 1}) == 1
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(engine.evaluate({"x": 2}))))
    thread.start()
    thread.join()
    assert answers == [2]
    assert await engine.evaluate({"x": 3}) == 3


async def test_a_panic_of_the_engine_is_an_error_and_the_next_request_gets_a_new_engine(tmp_path: Path) -> None:
    engine = EmbeddedEngine(bundle(tmp_path, "decision := input.x"), deadline_s=5)
    await engine.evaluate({"x": 1})
    here: list[object] = []
    built = engine._local.engine

    async def elsewhere() -> None:
        engine._local.engine = built  # the engine of another thread: regorus panics
        try:
            await engine.evaluate({"x": 2})
        except EngineFailure as failure:
            here.append((failure.reason, failure.detail))

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    thread.join()
    assert here == [("policy_error", "the engine panicked")]
    assert built is not None
    assert await engine.evaluate({"x": 3}) == 3


async def test_a_document_deeper_than_the_engine_reads_is_an_error(tmp_path: Path) -> None:
    deep: object = 1
    for _ in range(300):
        deep = [deep]
    with pytest.raises(EngineFailure, match="policy_error"):
        await EmbeddedEngine(bundle(tmp_path, "decision := 1")).evaluate({"x": deep})


def test_a_syntax_error_has_its_line() -> None:
    with pytest.raises(RegoError) as error:
        syntax(("a.rego", "package x\n\nfoo if {{"))
    assert (error.value.file, error.value.line) == ("a.rego", 3)
    assert "Stack" not in str(error.value)


def test_an_unsafe_variable_has_its_line() -> None:
    with pytest.raises(RegoError, match="unsafe") as error:
        prepare([("a.rego", "package x\n\nfoo := a if { b > 1 }\n")], "{}")
    assert (error.value.file, error.value.line) == ("a.rego", 3)
