"""The store under kill -9, on a full disk, locked, lost, damaged: nothing acknowledged is lost, or it is StoreDown."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gateway.adapters.sqlite import file as adapter
from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.ports.stores import DeviceRecord, StoreDown

KEY = bytes(32)
DEVICE = DeviceRecord("d1", "laptop", "ada", "it", "active", 1.0)

WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.ports.stores import DeviceRecord, SessionRecord

async def main(path, worker):
    store = SqliteStore(Path(path), bytes(32))
    for number in range(1_000_000):
        name = f"{worker}-{number}"
        await store.add_device(DeviceRecord(name, "n", "o", "d", "active", 1.0))
        await store.put_session(SessionRecord(name, "i", "s", "s", "", 1.0, 1.0, 9e9))
        await store.first_use(name, 1.0, 9e9)
        await store.put_secret("p", name, 1.0, name.encode())
        print(name, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""

LIMITED = """
import asyncio, resource, signal, sys
from pathlib import Path
from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.ports.stores import DeviceRecord, StoreDown

async def main(path):
    store = SqliteStore(Path(path), bytes(32))
    await store.add_device(DeviceRecord("kept", "n", "o", "d", "active", 1.0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for number in range(10_000):
        try:
            await store.add_device(DeviceRecord(f"d{number}", "n" * 2000, "o", "d", "active", 1.0))
        except StoreDown:
            kept = await store.device("kept")
            lost = await store.device(f"d{number}")
            print("full", kept is not None, lost is None, flush=True)
            return

asyncio.run(main(sys.argv[1]))
"""


def write_until_killed(path: Path, writers: int) -> list[str]:
    """The names that processes acknowledged before a SIGKILL in the middle of their work."""
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, f"w{n}"], stdout=subprocess.PIPE, text=True)
        for n in range(writers)
    ]
    acknowledged: list[str] = []
    for child in children:
        assert child.stdout is not None
        acknowledged += [child.stdout.readline().strip() for _ in range(25)]
    for child in children:
        child.send_signal(signal.SIGKILL)
    for child in children:
        rest, _ = child.communicate()
        acknowledged += rest.split("\n")[:-1]
    return acknowledged


async def test_every_write_acknowledged_before_kill_nine_is_there(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    acknowledged = write_until_killed(path, writers=2)
    assert len(acknowledged) >= 50
    store = SqliteStore(path, KEY)
    secrets = {name: value for name, _, value in await store.secrets("p")}
    for name in acknowledged:
        assert await store.device(name) is not None, name
        assert await store.session(name) is not None, name
        assert await store.first_use(name, 2.0, 9e9) is False, name
        assert secrets[name] == name.encode()
    assert store.one("PRAGMA integrity_check") == ("ok",)
    await store.close()


def test_a_full_disk_is_store_down_and_harms_nothing(tmp_path: Path) -> None:
    child = [sys.executable, "-c", textwrap.dedent(LIMITED), tmp_path / "gateway.db"]
    run = subprocess.run(child, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["full", "True", "True"]


async def test_a_store_can_be_written_again_after_the_disk_was_full(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "gateway.db", KEY)
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    big = DeviceRecord("big", "n" * 100_000, "o", "d", "active", 1.0)
    with pytest.raises(StoreDown, match="full"):
        await store.add_device(big)
    store._writer.execute("PRAGMA max_page_count = 1000000")
    await store.add_device(big)
    assert await store.device("big") == big
    await store.close()


async def test_reads_go_on_while_another_process_holds_the_write_lock(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "gateway.db", KEY)
    await store.add_device(DEVICE)
    blocker = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(store.add_device(DeviceRecord("d2", "n", "o", "d", "active", 1.0)))
    await asyncio.sleep(0.1)
    assert await store.device("d1") == DEVICE
    assert not waiting.done()
    blocker.execute("COMMIT")
    blocker.close()
    await waiting
    await store.close()


async def test_a_lock_that_is_never_given_back_is_store_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "_WRITE_WAIT_MS", 50)
    store = SqliteStore(tmp_path / "gateway.db", KEY)
    blocker = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreDown, match="locked"):
        await store.add_device(DEVICE)
    with pytest.raises(StoreDown):
        await store.ping()
    blocker.close()
    await store.add_device(DEVICE)
    await store.close()


def test_a_file_that_is_no_database_is_store_down_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.write_bytes(b"this is not a database, whatever it may look like" * 100)
    with pytest.raises(StoreDown):
        SqliteStore(path, KEY)
    assert path.read_bytes().startswith(b"this is not")


async def test_a_damaged_page_is_store_down(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    store = SqliteStore(path, KEY)
    for number in range(200):
        await store.add_device(DeviceRecord(f"d{number}", "n" * 500, "o", "d", "active", 1.0))
    await store.close()
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)
    path.write_bytes(raw)
    damaged = SqliteStore(path, KEY)
    with pytest.raises(StoreDown):
        await damaged.device("d1")
    with pytest.raises(StoreDown):
        await damaged.add_device(DEVICE)
    await damaged.close()


async def test_a_folder_that_cannot_be_made_is_store_down(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreDown):
        SqliteStore(tmp_path / "file" / "gateway.db", KEY)


async def test_a_file_that_was_replaced_is_found_by_ping(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    store = SqliteStore(path, KEY)
    await store.ping()
    path.rename(tmp_path / "moved.db")
    with pytest.raises(StoreDown, match="removed or replaced"):
        await store.ping()
    path.write_bytes(b"")
    with pytest.raises(StoreDown, match="removed or replaced"):
        await store.ping()
    await store.close()


async def test_a_closed_store_is_store_down(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "gateway.db", KEY)
    await store.close()
    with pytest.raises(StoreDown):
        await store.device("d1")
    with pytest.raises(StoreDown):
        await store.add_device(DEVICE)


async def test_ten_thousand_revocations_at_once_are_acknowledged_and_heard_of_by_who_was_away(tmp_path: Path) -> None:
    path, names = tmp_path / "gateway.db", [f"b_{number}" for number in range(10_000)]
    one, two = SqliteStore(path, KEY), SqliteStore(path, KEY)
    at_first = await two.latest()
    assert await asyncio.gather(*(one.revoke_session(name, 1.0, "left") for name in names)) == [False] * len(names)
    found = await two.changes(at_first)
    assert found is not None
    assert [change.key for change in found] == names
    await one.close()
    await two.close()


async def test_a_write_that_fails_is_undone_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "gateway.db", KEY)

    def half(db: adapter.Connection) -> None:
        db.execute("INSERT INTO enrolments VALUES ('half', 'd1', 9e9)")
        raise ValueError("no more")

    works = (store.add_device(DEVICE), store.write(half), store.add_enrolment("whole", "d1", 9e9), store.ping())
    found = await asyncio.gather(*works, return_exceptions=True)
    assert [type(answer) for answer in found] == [bool, ValueError, type(None), type(None)]
    assert await store.device("d1") == DEVICE
    assert await store.take_enrolment("half", 1.0) is None
    assert await store.take_enrolment("whole", 1.0) == "d1"
    await store.close()


async def test_a_write_that_ends_the_transaction_is_store_down_for_who_shared_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "gateway.db", KEY)
    works = (store.add_device(DEVICE), store.write(lambda db: db.execute("ROLLBACK")), store.ping())
    found = await asyncio.gather(*works, return_exceptions=True)
    assert any(isinstance(answer, StoreDown) for answer in found)
    for answer, name in ((found[0], "d1"),):
        assert (await store.device(name) is None) == isinstance(answer, StoreDown)
    await store.ping()
    await store.close()


async def test_two_processes_that_start_at_once_make_one_schema(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    stores = await asyncio.gather(*(asyncio.to_thread(SqliteStore, path, KEY) for _ in range(8)))
    await asyncio.gather(*(store.ping() for store in stores))
    for store in stores:
        await store.close()
