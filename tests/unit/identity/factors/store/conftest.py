"""The fixtures of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.identity.factors.store import (
    Factors,
)
from plugins.factors import builtin
from tests.support.factor_world import ADA, Person
from tests.support.login_world import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "gateway.db", bytes(32), clock)
    yield store
    await store.close()


@pytest.fixture
def documents(store: SqliteStore) -> SqliteDocuments:
    return SqliteDocuments(store)


@pytest.fixture
def factors(documents: SqliteDocuments, clock: Clock) -> Factors:
    return Factors(documents, builtin("Example", "example.com", ["https://gw.example.com"]), clock)


@pytest.fixture
def ada(factors: Factors, clock: Clock) -> Person:
    return Person(factors, clock, ADA)
