"""Random policies and inputs get one answer from the embedded engine, a real OPA server and the gateway over either."""

from __future__ import annotations

import os
import random

import pytest

from tests.support.opa_world import Opas
from tests.support.policy_parity import compare

POLICIES = int(os.environ.get("GATEWAY_PARITY_POLICIES", "2000"))


@pytest.mark.timeout(900)
async def test_random_policies_mean_the_same_everywhere(opas: Opas) -> None:
    seed = int(os.environ.get("GATEWAY_PARITY_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"\nGATEWAY_PARITY_SEED={seed}")  # noqa: T201  (to run the same ones again)
    found = await compare(opas.start(), POLICIES, seed)
    assert found.differences[:1] == [], f"GATEWAY_PARITY_SEED={seed}"
    assert found.policies == POLICIES
    assert found.defined > POLICIES, "too few of the answers say anything"
