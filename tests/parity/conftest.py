"""What the parity tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.opa_world import BINARY, Opas


@pytest.fixture
def opas() -> Iterator[Opas]:
    if not BINARY.exists():
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no OPA server in .tools/opa (tests/tools.sh builds it where Go is)")
    servers = Opas()
    yield servers
    servers.stop_all()
