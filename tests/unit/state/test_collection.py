"""Compare-and-set over typed documents, on a real file that two workers have open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.state.collection import Codec, Collection, Entry

NOW, END = 1_800_000_000.0, 1_800_000_060.0
NUMBER: Codec[int] = Codec(encode=lambda number: str(number).encode(), decode=int)
type Workers = tuple[Collection[int], Collection[int]]


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            store = SqliteStore(tmp_path / "gateway.sqlite", bytes(32), lambda: NOW)
            stack.push_async_callback(store.close)
            documents = SqliteDocuments(store)
            opened.append(Collection(documents=documents, name="numbers", codec=NUMBER, clock=lambda: NOW))
        yield opened[0], opened[1]


async def test_a_value_comes_back_with_its_version_and_end(workers: Workers) -> None:
    one, two = workers
    assert await one.read("k") == Entry("k", None, 0)
    assert await one.get("k") is None
    assert await one.add("k", 7, END, group="g")
    entry = await two.read("k")
    assert (entry.value, entry.expires_at) == (7, END)
    assert entry.version > 0
    assert await two.get("k") == 7
    assert list(await two.list("g")) == [entry]


async def test_what_is_there_is_not_added_again(workers: Workers) -> None:
    one, two = workers
    assert await one.add("k", 1, END)
    assert not await two.add("k", 2, END)
    assert await one.get("k") == 1


async def test_only_exactly_what_was_read_is_replaced(workers: Workers) -> None:
    one, two = workers
    await one.add("k", 1, END)
    old = await one.read("k")
    assert await two.replace(await two.read("k"), 2, END)
    assert not await one.replace(old, 3, END)
    assert await one.get("k") == 2


async def test_of_several_takers_one_gets_it(workers: Workers) -> None:
    await workers[0].add("k", 1, END)
    taken = await asyncio.gather(*(worker.take("k") for worker in workers * 5))
    assert sorted(taken, key=str) == [1] + [None] * 9
    assert not await workers[0].delete("k")


async def test_additions_of_two_workers_at_once_all_count(workers: Workers) -> None:
    async def count(worker: Collection[int]) -> bool:
        async for entry in worker.attempts("k"):
            if await worker.replace(entry, (entry.value or 0) + 1, END):
                return True
        return False

    assert all(await asyncio.gather(*(count(worker) for worker in workers * 10)))
    assert await workers[0].get("k") == 20


async def test_attempts_come_to_an_end(workers: Workers) -> None:
    worker = workers[0]
    entries = [entry async for entry in worker.attempts("k", 3)]
    assert entries == [Entry("k", None, 0)] * 3
