from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.ports.stores import SessionRecord, StoreDown
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.identity.bearer.sessions import BearerSessions, session_id
from tests.support.clock import NOW as AN_HOUR_AGO
from tests.support.pki_world import reason_of

NOW = float(int(AN_HOUR_AGO))
THUMB = "A" * 43
STAFF = Route("wiki", "wiki.example")
USER = Route("shop", "shop.example", plane="user")
ADA = Identity("https://id", "ada", "jwt", "sid-1", NOW + 600, email="ada@example", auth_time=NOW - 30)
ADAS = session_id("https://id", "ada", "sid-1")
LAPTOP = Device("d1", THUMB)


class Recording:
    """A real store; what is asked of it is noted."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self.store, name)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Recording]:
    opened = SqliteStore(tmp_path / "gateway.db", bytes(32))
    yield Recording(opened)
    await opened.close()


@pytest.fixture
def clock() -> list[float]:
    return [NOW]


@pytest.fixture
def sessions(store: Recording, clock: list[float]) -> BearerSessions:
    return BearerSessions(store, lambda: clock[0])


def facts(cert_sha256: str = "") -> RequestFacts:
    peer = Peer("127.0.0.1", 1, (b"x",) if cert_sha256 else (), cert_sha256)
    return RequestFacts("GET", "wiki.example", "/", (), "", (), (), "h2", 0, peer, "127.0.0.1")


async def test_a_staff_session_is_recorded_at_its_first_sight(sessions: BearerSessions, store: Recording) -> None:
    assert await sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF) == Session(ADAS, NOW)
    expected = SessionRecord(ADAS, "https://id", "ada", "ada@example", "d1", NOW, NOW, NOW + 600)
    assert await store.store.session(ADAS) == expected


async def test_a_session_keeps_its_beginning_and_is_refreshed_once_a_minute(
    sessions: BearerSessions, store: Recording, clock: list[float]
) -> None:
    await sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF)
    store.calls.clear()
    for step in (1, 30, 59):
        clock[0] = NOW + step
        assert await sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF) == Session(ADAS, NOW)
    assert store.calls == ["session"] * 3
    clock[0] = NOW + 60
    later = replace(ADA, expires_at=NOW + 900)
    assert await sessions.bind(later, LAPTOP, facts(THUMB), STAFF) == Session(ADAS, NOW)
    record = await store.store.session(ADAS)
    assert record is not None
    assert (record.created_at, record.last_seen_at, record.expires_at) == (NOW, NOW + 60, NOW + 900)


async def test_many_requests_at_once_refresh_once(
    sessions: BearerSessions, store: Recording, clock: list[float]
) -> None:
    await sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF)
    store.calls.clear()
    clock[0] = NOW + 61
    await asyncio.gather(*(sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF) for _ in range(20)))
    assert store.calls.count("put_session") == 1


async def test_on_a_zero_log_route_nothing_is_written(
    sessions: BearerSessions, store: Recording, clock: list[float]
) -> None:
    session = await sessions.bind(ADA, LAPTOP, facts(THUMB), USER)
    assert session == Session(ADAS, NOW - 30)
    await sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF)
    store.calls.clear()
    clock[0] = NOW + 600
    assert await sessions.bind(ADA, LAPTOP, facts(THUMB), USER) == Session(ADAS, NOW)
    assert store.calls == ["session"]


@pytest.mark.parametrize("route", [STAFF, USER], ids=["staff", "zero-log"])
async def test_a_revoked_session_is_refused_everywhere(
    sessions: BearerSessions, store: Recording, route: Route
) -> None:
    await sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF)
    await store.store.revoke_session(ADAS, NOW, "left the company")
    newer_token = replace(ADA, expires_at=NOW + 9_000)
    assert reason_of(await sessions.bind(newer_token, LAPTOP, facts(THUMB), route)) == "session_revoked"


async def test_another_login_of_the_same_person_is_another_session(sessions: BearerSessions, store: Recording) -> None:
    await sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF)
    await store.store.revoke_session(ADAS, NOW, "left")
    other = await sessions.bind(replace(ADA, session_hint="sid-2"), LAPTOP, facts(THUMB), STAFF)
    assert isinstance(other, Session)


# ---- tokens that are bound to a key ----


async def test_a_token_bound_to_this_certificate_is_accepted(sessions: BearerSessions) -> None:
    bound = replace(ADA, confirmation={"x5t#S256": THUMB})
    for device, request in ((LAPTOP, facts(THUMB)), (None, facts(THUMB)), (LAPTOP, facts())):
        session = await sessions.bind(bound, device, request, STAFF)
        assert isinstance(session, Session)
        assert session.bound_by == ("x5t#S256",)


@pytest.mark.parametrize(
    "confirmation",
    [
        {"x5t#S256": "B" * 43},
        {"x5t#S256": ""},
        {"x5t#S256": THUMB[:-1]},
        {"x5t#S256": "\u00e9" * 43},
        {"x5t#S256": "\ud800"},
        {"jkt": THUMB},
        {"jkt": THUMB, "x5t#S256": THUMB},
        {"jwk": "{}"},
        {"kid": "1"},
    ],
)
async def test_a_token_bound_to_anything_else_is_refused(
    sessions: BearerSessions, store: Recording, confirmation: dict[str, str]
) -> None:
    bound = replace(ADA, confirmation=confirmation)
    assert reason_of(await sessions.bind(bound, LAPTOP, facts(THUMB), STAFF)) == "binding_mismatch"
    assert "put_session" not in store.calls


async def test_a_bound_token_without_any_certificate_is_refused(sessions: BearerSessions) -> None:
    for thumb in (THUMB, ""):
        bound = replace(ADA, confirmation={"x5t#S256": thumb})
        assert reason_of(await sessions.bind(bound, None, facts(), STAFF)) == "binding_mismatch"


# ---- the store ----


async def test_a_store_that_cannot_be_read_is_not_access(sessions: BearerSessions, store: Recording) -> None:
    await store.store.close()
    for route in (STAFF, USER):
        with pytest.raises(StoreDown):
            await sessions.bind(ADA, LAPTOP, facts(THUMB), route)


async def test_a_session_that_cannot_be_recorded_is_not_access(
    sessions: BearerSessions, store: Recording, clock: list[float]
) -> None:
    await sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF)
    store.store._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreDown):
        await sessions.bind(replace(ADA, subject="bob"), LAPTOP, facts(THUMB), STAFF)
    clock[0] = NOW + 61
    for _ in range(2):
        with pytest.raises(StoreDown):
            await sessions.bind(ADA, LAPTOP, facts(THUMB), STAFF)
    assert isinstance(await sessions.bind(ADA, LAPTOP, facts(THUMB), USER), Session)


# ---- ids ----


@given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
def test_ids_are_equal_only_for_equal_parts(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (session_id(*one) == session_id(*other)) == (one == other)


def test_parts_cannot_be_shifted_into_each_other() -> None:
    assert session_id("ab", "c", "") != session_id("a", "bc", "")
    assert len(ADAS) == 34
    assert ADAS.startswith("b_")
