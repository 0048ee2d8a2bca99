from __future__ import annotations

import sqlite3
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.adapters.sqlite.changes import add_change
from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.ports.stores import IssuedCertificate, StoreDown
from tests.support.changes_conformance import ChangesConformance
from tests.support.cost import cost_of
from tests.support.store_conformance import DEVICE, NOW, SESSION, StoreConformance

KEY = bytes(range(32))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "state" / "gateway.db", KEY)
    yield opened
    await opened.close()


@pytest.fixture
async def other(store: SqliteStore, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "state" / "gateway.db", KEY)
    yield opened
    await opened.close()


class TestSqlite(StoreConformance):
    pass


class TestChanges(ChangesConformance):
    pass


async def test_changes_are_kept_for_an_hour_and_ten_thousand_whatever_is_more(tmp_path: Path) -> None:
    now = [NOW]
    store = SqliteStore(tmp_path / "state" / "gateway.db", KEY, lambda: now[0])
    try:

        def many(db: sqlite3.Connection) -> None:
            for number in range(10_050):
                add_change(db, now[0], "session", str(number))

        await store.write(many)
        assert len(await store.changes(0) or ()) == 10_050
        now[0] += 3_601
        await store.announce("all", "")
        assert await store.changes(0) is None
        assert await store.changes(40) is None
        kept = await store.changes(51)
        assert kept is not None
        assert [kept[0].seq, kept[-1].seq] == [52, 10_051]
    finally:
        await store.close()


async def test_the_files_and_the_folder_are_for_the_owner_alone(store: SqliteStore, tmp_path: Path) -> None:
    await store.add_device(DEVICE)
    folder = tmp_path / "state"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["gateway.db", "gateway.db-shm", "gateway.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StoreDown, match="chmod 700"):
        SqliteStore(folder / "gateway.db", KEY)


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    first = SqliteStore(path, KEY)
    await first.add_device(DEVICE)
    await first.put_session(SESSION)
    await first.put_secret("p", "n", NOW, b"value")
    await first.close()
    second = SqliteStore(path, KEY)
    assert await second.device("d1") == DEVICE
    assert await second.session("b_1") == SESSION
    assert await second.secrets("p") == [("n", NOW, b"value")]
    await second.close()


async def test_a_secret_is_not_in_the_files_in_clear(store: SqliteStore, tmp_path: Path) -> None:
    await store.put_secret("p", "n", NOW, b"canary-canary-canary")
    assert all(b"canary" not in file.read_bytes() for file in (tmp_path / "state").iterdir())


async def test_a_secret_does_not_open_with_another_master_key(store: SqliteStore, tmp_path: Path) -> None:
    await store.put_secret("p", "n", NOW, b"value")
    stranger = SqliteStore(tmp_path / "state" / "gateway.db", bytes(32))
    with pytest.raises(StoreDown):
        await stranger.secrets("p")
    await stranger.close()


async def test_a_secret_moved_to_another_name_does_not_open(store: SqliteStore) -> None:
    await store.put_secret("p", "n", NOW, b"value")
    await store.write(lambda db: db.execute("UPDATE secrets SET name = 'm'").rowcount)
    with pytest.raises(StoreDown):
        await store.secrets("p")


def test_a_master_key_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SqliteStore(tmp_path / "gateway.db", b"short")


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreDown, match="version 99"):
        SqliteStore(path, KEY)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    db.close()


async def test_expired_rows_are_pruned_when_others_are_written(tmp_path: Path) -> None:
    clock = [NOW]
    store = SqliteStore(tmp_path / "gateway.db", KEY, clock=lambda: clock[0])
    await store.add_enrolment("old", "d1", NOW + 1)
    await store.add_certificate(IssuedCertificate("0a", "d1", NOW, NOW + 1))
    await store.put_session(replace(SESSION, expires_at=NOW + 1))
    await store.put_session(replace(SESSION, id="ended", expires_at=NOW + 1))
    await store.revoke_session("ended", NOW, "left")
    await store.first_use("k", NOW, NOW + 1)
    clock[0] = NOW + 2
    await store.add_enrolment("new", "d1", NOW + 9)
    await store.add_certificate(IssuedCertificate("0b", "d1", NOW, NOW + 9))
    await store.put_session(replace(SESSION, id="b_2"))
    await store.first_use("l", NOW + 2, NOW + 9)
    counts = [
        store.one(f"SELECT count(*) FROM {table}")[0]  # noqa: S608  (constants only)
        for table in ("enrolments", "certificates", "sessions", "used")
    ]
    assert counts == [1, 1, 2, 1]
    clock[0] = NOW + 401 * 86_400
    await store.put_session(replace(SESSION, id="b_3", expires_at=clock[0] + 9))
    assert await store.session("ended") is None
    await store.close()


async def test_a_look_up_on_the_hot_path_takes_microseconds(store: SqliteStore) -> None:
    await store.add_device(DEVICE)
    await store.put_session(SESSION)
    assert await cost_of(lambda: store.device("d1")) < 5  # 1
    assert await cost_of(lambda: store.session("b_1")) < 5
