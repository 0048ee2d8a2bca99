"""Random policies and inputs get one answer from the embedded engine, a real OPA server and the gateway over either."""

from __future__ import annotations

import os
import random
from typing import Any

import httpx
import pytest

from gateway.core.decision import Decision
from gateway.core.ports.pipeline import EngineFailure, PolicyEngine
from gateway.core.reasons import Refusal
from gateway.policy.bundle.model import Bundle
from gateway.policy.contract import ENTRY_POINT, document_json
from gateway.policy.decider import Decider, key_of
from gateway.policy.engines.compiled_policy import CompiledPolicy, PolicyRejected
from gateway.policy.engines.embedded import EmbeddedEngine
from gateway.policy.engines.server import OpaEngine
from tests.support.opa_world import Opas
from tests.support.rego_generator import DATA, Generator

POLICIES = int(os.environ.get("GATEWAY_PARITY_POLICIES", "2000"))
INPUTS = 3
SOON_S = 5.0


def in_memory(source: str) -> Bundle | None:
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


@pytest.mark.timeout(900)
async def test_random_policies_mean_the_same_everywhere(opas: Opas) -> None:
    seed = int(os.environ.get("GATEWAY_PARITY_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"\nGATEWAY_PARITY_SEED={seed}")  # noqa: T201  (to run the same ones again)
    url, compared, defined, number = opas.start(), 0, 0, 0
    differences = list[Any]()
    async with httpx.AsyncClient(base_url=url, trust_env=False) as server:
        assert (await server.put("/v1/data", json=DATA)).status_code == httpx.codes.NO_CONTENT
        while compared < POLICIES:
            number += 1
            generator = Generator(seed + number)
            source = generator.module()
            bundle = in_memory(source)
            if bundle is None and number % 4:
                continue
            pushed = await server.put("/v1/policies/random", content=source)
            taken = pushed.status_code == httpx.codes.OK
            if taken != (bundle is not None):
                differences.append((seed, number, "one of the two refuses it", source))
            if bundle is None:
                continue
            compared += 1
            embedded, remote = EmbeddedEngine(bundle, SOON_S), OpaEngine(bundle, url, push=False)
            await remote.start()
            try:
                for _ in range(INPUTS):
                    document = generator.document()
                    answers = [
                        outcome(await Decider(engine, SOON_S, cache_size=0).decide(document))
                        for engine in (embedded, remote)
                    ]
                    raw = [await answer_of(engine, document) for engine in (embedded, remote)]
                    defined += raw[0] not in (None, "policy_error")
                    if answers[0] != answers[1] or document_json(raw[0]) != document_json(raw[1]):
                        differences.append((seed, number, document, answers, raw, source))
                    if (beside := await unread(embedded, bundle, document, raw[0])) is not None:
                        differences.append(
                            (seed, number, document, "what is not read changed the answer", beside, source)
                        )
            finally:
                await remote.close()
                await embedded.close()
    assert differences[:1] == []
    assert compared == POLICIES
    assert defined > POLICIES, "too few of the answers say anything"


async def answer_of(engine: PolicyEngine, document: dict[str, Any]) -> object:
    """The raw answer, or the reason of the failure."""
    try:
        return await engine.evaluate(document)
    except EngineFailure as failure:
        return failure.reason


async def unread(engine: EmbeddedEngine, bundle: Bundle, document: dict[str, Any], answer: object) -> object:
    """An input that is the same in all that is read and gets another answer; None when there is none."""
    for name in (*document, "beside"):
        other = {**document, name: {"another": ["value"]}}
        if key_of(other, bundle.reads) == key_of(document, bundle.reads) and await answer_of(engine, other) != answer:
            return other
    return None
