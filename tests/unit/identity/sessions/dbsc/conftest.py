"""The fixtures of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.dbsc_world import Bound


@pytest.fixture
async def bound(tmp_path: Path) -> AsyncIterator[Bound]:
    made = Bound(tmp_path)
    yield made
    await made.world.close()
