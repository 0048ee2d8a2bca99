from __future__ import annotations

import asyncio
import itertools
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.adapters.sqlite import schema as statements
from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.ports.stores import StoreDown
from tests.support.cost import cost_of
from tests.support.documents_conformance import END, NOW, DocumentsConformance

KEY = bytes(range(32))
type Open = Callable[[], SqliteStore]


@pytest.fixture
def clock() -> list[float]:
    return [NOW]


@pytest.fixture
async def reopen(tmp_path: Path, clock: list[float]) -> AsyncIterator[Open]:
    opened: list[SqliteStore] = []

    def make() -> SqliteStore:
        opened.append(SqliteStore(tmp_path / "gateway.db", KEY, lambda: clock[0]))
        return opened[-1]

    yield make
    for store in opened:
        await store.close()


@pytest.fixture
def store(reopen: Open) -> SqliteStore:
    return reopen()


@pytest.fixture
def documents(store: SqliteStore) -> SqliteDocuments:
    return SqliteDocuments(store)


@pytest.fixture
def other(store: SqliteStore, reopen: Open) -> SqliteDocuments:
    return SqliteDocuments(reopen())


class TestSqliteDocuments(DocumentsConformance):
    pass


COUNTER = """
import asyncio, sys
from pathlib import Path
from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore

async def main(path):
    store = SqliteStore(Path(path), bytes(range(32)))
    documents = SqliteDocuments(store)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(25):
        while True:
            found = await documents.get("c", "count", 0.0)
            if await documents.put("c", "count", b"%d" % (int(found.value) + 1), 9e9, version=found.version):
                break
    for number in range(50):
        if await documents.take("c", f"k{number}", 0.0) is not None:
            print(number, flush=True)
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


async def test_processes_count_and_take_without_losing_or_doubling(documents: SqliteDocuments, tmp_path: Path) -> None:
    await documents.overwrite("c", "count", b"0", 9e9)
    for number in range(50):
        await documents.overwrite("c", f"k{number}", b"", 9e9)
    command = [sys.executable, "-c", COUNTER, tmp_path / "gateway.db"]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    taken = [int(line) for child in children for line in (await asyncio.to_thread(child.communicate))[0].split()]
    assert sorted(taken) == list(range(50))
    found = await documents.get("c", "count", 0.0)
    assert found is not None
    assert found.value == b"75"


async def test_everything_is_there_after_a_restart(
    documents: SqliteDocuments, store: SqliteStore, reopen: Open
) -> None:
    await documents.overwrite("c", "k", b"value", END)
    await store.close()
    found = await SqliteDocuments(reopen()).get("c", "k", NOW)
    assert found is not None
    assert found.value == b"value"


async def test_a_file_of_the_first_version_gets_its_documents(tmp_path: Path, reopen: Open) -> None:
    with sqlite3.connect(tmp_path / "gateway.db") as db:
        db.executescript(statements.SCHEMAS[0])
        db.execute("INSERT INTO used VALUES ('k', 9e12)")
        db.execute("PRAGMA user_version = 1")
    db.close()
    store = reopen()
    await SqliteDocuments(store).overwrite("c", "k", b"value", END)
    assert await store.first_use("k", NOW, END) is False
    assert await SqliteDocuments(reopen()).get("c", "k", NOW) is not None


async def test_a_value_is_not_in_the_files_in_clear(documents: SqliteDocuments, tmp_path: Path) -> None:
    await documents.overwrite("c", "k", b"canary-canary-canary", END)
    names = ("gateway.db", "gateway.db-wal")
    assert all(b"canary" not in (tmp_path / name).read_bytes() for name in names)


@pytest.mark.parametrize("change", ["key = 'm'", "collection = 'd'", "sealed = x'01'", "sealed = zeroblob(40)"])
async def test_a_value_that_was_moved_or_changed_does_not_open(
    documents: SqliteDocuments, store: SqliteStore, change: str
) -> None:
    await documents.overwrite("c", "k", b"value", END, group="g")
    await store.write(lambda db: db.execute(f"UPDATE documents SET {change}").rowcount)  # noqa: S608  (constants only)
    key, collection = ("m" if "'m'" in change else "k"), ("d" if "'d'" in change else "c")
    with pytest.raises(StoreDown):
        await documents.get(collection, key, NOW)
    with pytest.raises(StoreDown):
        await documents.list(collection, "g", NOW)
    with pytest.raises(StoreDown):
        await documents.take(collection, key, NOW)


async def test_a_secret_of_the_store_does_not_open_as_a_document(
    documents: SqliteDocuments, store: SqliteStore
) -> None:
    await store.put_secret("c", "k", NOW, b"value")
    await documents.overwrite("c", "k", b"", END)
    await store.write(lambda db: db.execute("UPDATE documents SET sealed = (SELECT sealed FROM secrets)").rowcount)
    with pytest.raises(StoreDown):
        await documents.get("c", "k", NOW)


async def test_a_closed_store_is_store_down(documents: SqliteDocuments, store: SqliteStore) -> None:
    await store.close()
    with pytest.raises(StoreDown):
        await documents.get("c", "k", NOW)
    with pytest.raises(StoreDown):
        await documents.list("c", "g", NOW)
    with pytest.raises(StoreDown):
        await documents.overwrite("c", "k", b"", END)
    with pytest.raises(StoreDown):
        await documents.take("c", "k", NOW)
    with pytest.raises(StoreDown):
        await documents.delete("c", "k")


async def test_a_write_that_fails_is_store_down_and_leaves_what_was_there(
    documents: SqliteDocuments, store: SqliteStore
) -> None:
    await documents.overwrite("c", "k", b"value", END)
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreDown, match="full"):
        await documents.overwrite("c", "k", bytes(100_000), END)
    found = await documents.get("c", "k", NOW)
    assert found is not None
    assert found.value == b"value"


async def test_what_has_ended_is_removed_by_later_writes(
    documents: SqliteDocuments, store: SqliteStore, clock: list[float]
) -> None:
    for number in range(100):
        await documents.overwrite("c", f"k{number}", b"", END)
    clock[0] = END
    for number in range(4):
        await documents.overwrite("d", f"k{number}", b"", END + 60)
    assert store.one("SELECT count(*) FROM documents") == (4,)


def test_every_read_goes_by_an_index(store: SqliteStore) -> None:
    for statement in (statements.GET_DOCUMENT, statements.FIND_DOCUMENT, statements.LIST_DOCUMENTS):
        plan = store.every("EXPLAIN QUERY PLAN " + statement, ("c", "k", NOW))
        assert "USING INDEX" in plan[0][3], plan


async def test_a_read_among_many_takes_microseconds(documents: SqliteDocuments, store: SqliteStore) -> None:
    value = bytes(600)
    rows = [
        ("session", f"{n:064x}", f"g{n % 1000}", None, END, store.seal.seal("documents/session", f"{n:064x}", value))
        for n in range(100_000)
    ]
    await store.write(lambda db: db.executemany(statements.PUT_DOCUMENT, rows).rowcount)
    numbers = itertools.count(step=997)
    assert await cost_of(lambda: documents.get("session", f"{next(numbers) % 100_000:064x}", NOW)) < 5  # 1.5
    assert await documents.get("session", f"{77_777:064x}", NOW) is not None
