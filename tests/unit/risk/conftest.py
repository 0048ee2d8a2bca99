from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from tests.support.risk_world import Clock, World


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    clock = Clock()
    store = SqliteStore(tmp_path / "gateway.sqlite", b"k" * 32, clock=clock.wall)
    yield World(SqliteDocuments(store), clock)
    await store.close()
