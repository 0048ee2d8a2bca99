"""The OPA library, built once (a cached one is only copied)."""

import pytest

from gateway.policy.engines.opa_bridge import build


@pytest.fixture(scope="session", autouse=True)
def built_library() -> None:
    build.build()
