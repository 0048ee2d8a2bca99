"""Random policies and inputs in the embedded engine and in a real OPA server, raw and as the gateway reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.core.decision import Decision
from gateway.core.ports.pipeline import EngineFailure, PolicyEngine
from gateway.core.reasons import Refusal
from gateway.policy.bundle.model import Bundle
from gateway.policy.contract import ENTRY_POINT, document_json
from gateway.policy.decider import Decider, key_of
from gateway.policy.engines.compiled_policy import CompiledPolicy, PolicyRejected
from gateway.policy.engines.embedded import EmbeddedEngine
from gateway.policy.engines.server import OpaEngine
from tests.support.rego_generator import DATA, Generator

_INPUTS = 3
_SOON_S = 5.0
# Of what the engine refuses, so many are shown to the server as well: it refuses nearly three in four.
_REFUSED_EACH = 4


@dataclass(slots=True)
class Comparison:
    """How many policies were compared, how many of their answers were defined, and every difference."""

    seed: int
    policies: int = 0
    defined: int = 0
    differences: list[tuple[Any, ...]] = field(default_factory=list)


async def compare(url: str, policies: int, seed: int) -> Comparison:
    """Compare so many random policies that compile, over the OPA server at `url`."""
    found, number = Comparison(seed), 0
    async with httpx.AsyncClient(base_url=url, trust_env=False) as server:
        if (await server.put("/v1/data", json=DATA)).status_code != httpx.codes.NO_CONTENT:
            raise RuntimeError("the OPA server takes no data")
        while found.policies < policies:
            number += 1
            generator = Generator(seed + number)
            source = generator.module()
            bundle = _in_memory(source)
            if bundle is None and number % _REFUSED_EACH:
                continue
            taken = (await server.put("/v1/policies/random", content=source)).status_code == httpx.codes.OK
            if taken != (bundle is not None):
                found.differences.append((seed, number, "one of the two refuses it", source))
            if bundle is not None:
                found.policies += 1
                await _compare_answers(bundle, url, generator, found)
    return found


async def _compare_answers(bundle: Bundle, url: str, generator: Generator, found: Comparison) -> None:
    embedded, remote = EmbeddedEngine(bundle, _SOON_S), OpaEngine(bundle, url, push=False)
    await remote.start()
    try:
        for _ in range(_INPUTS):
            document = generator.document()
            raw = [await answer_of(engine, document) for engine in (embedded, remote)]
            decided = [
                outcome(await Decider(engine, _SOON_S, cache_size=0).decide(document)) for engine in (embedded, remote)
            ]
            found.defined += raw[0] not in (None, "policy_error")
            if decided[0] != decided[1] or document_json(raw[0]) != document_json(raw[1]):
                found.differences.append((found.seed, document, decided, raw, bundle.modules))
            if (other := await _unread_change(embedded, bundle, document, raw[0])) is not None:
                found.differences.append(
                    (found.seed, document, "what is not read changed the answer", other, bundle.modules)
                )
    finally:
        await remote.close()
        await embedded.close()


def _in_memory(source: str) -> Bundle | None:
    """A bundle of one module, None when OPA refuses it."""
    data = document_json(DATA).encode()
    try:
        policy = CompiledPolicy.load([("authz.rego", source)], data, entry=ENTRY_POINT)
    except PolicyRejected:
        return None
    return Bundle((("authz.rego", source),), data, "random", policy)


def outcome(answer: Decision | Refusal) -> object:
    """The decision, or the reason of the refusal: its detail names a place in one engine and a status in the other."""
    return answer.reason if isinstance(answer, Refusal) else answer


async def answer_of(engine: PolicyEngine, document: dict[str, Any]) -> object:
    """The raw answer, or the reason of the failure."""
    try:
        return await engine.evaluate(document)
    except EngineFailure as failure:
        return failure.reason


async def _unread_change(engine: EmbeddedEngine, bundle: Bundle, document: dict[str, Any], answer: object) -> object:
    """An input that agrees in all that is read and gets another answer; None when there is none."""
    for name in (*document, "beside"):
        other = {**document, name: {"another": ["value"]}}
        if key_of(other, bundle.reads) == key_of(document, bundle.reads) and await answer_of(engine, other) != answer:
            return other
    return None
