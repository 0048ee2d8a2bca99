"""The fixtures of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.login_world import (
    LAPTOP,
    Browser,
    World,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, others=True)
    yield made
    await made.close()


@pytest.fixture
def browser() -> Browser:
    return Browser(LAPTOP)
