from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.adapters.stale_reads import GraceDocuments, GraceStore, StaleReadCache
from gateway.core.ports.documents import Document
from gateway.core.ports.stores import Change, DeviceRecord, Store, StoreDown, StoreLost
from tests.support.store_conformance import DEVICE, LIFE_S, NOW, SESSION, StoreConformance

END = NOW + LIFE_S


class Switch:
    """A store and its documents, which can be turned off."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.documents = SqliteDocuments(store)
        self.error: StoreDown | None = None
        self.news: list[Change] | None = []

    def __getattr__(self, name: str) -> object:
        if self.error is not None:
            raise self.error
        return getattr(
            self.documents if name in {"get", "put", "overwrite", "take", "delete", "list"} else self.store, name
        )

    async def changes(self, after: int) -> list[Change] | None:
        return self.news


class World:
    def __init__(self, store: SqliteStore) -> None:
        self.now = 1000.0
        self.switch = Switch(store)
        self.told: list[bool] = []
        self.memory = StaleReadCache(10.0, self.told.append, lambda: self.now)
        self.store = GraceStore(self.switch, self.memory, lambda: NOW + 500)  # type: ignore[arg-type]
        self.documents = GraceDocuments(self.switch, self.memory)  # type: ignore[arg-type]

    async def device(self) -> DeviceRecord | None:
        return await self.store.device("d1")

    def fail(self, error: StoreDown | None = None) -> None:
        self.switch.error = error or StoreDown("redis: it is down")


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "gateway.db", bytes(32))
    yield opened
    await opened.close()


@pytest.fixture
async def world(sqlite: SqliteStore) -> World:
    world = World(sqlite)
    await world.store.add_device(DEVICE)
    await world.store.put_session(SESSION)
    await world.documents.overwrite("c", "k", b"value", END)
    assert await world.device() == DEVICE
    assert await world.store.session("b_1") == SESSION
    assert await world.documents.get("c", "k", NOW) is not None
    return world


class TestGraceStore(StoreConformance):
    @pytest.fixture
    def store(self, sqlite: SqliteStore) -> GraceStore:
        return World(sqlite).store

    @pytest.fixture
    def other(self, sqlite: SqliteStore) -> GraceStore:
        return World(sqlite).store


def test_every_method_of_a_store_is_there() -> None:
    wanted = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}
    assert wanted <= set(dir(GraceStore))


async def test_within_the_grace_good_answers_are_given_again(world: World) -> None:
    world.fail()
    world.now += 9.9
    assert await world.device() == DEVICE
    assert await world.store.session("b_1") == replace(SESSION, last_seen_at=NOW + 500)
    found = await world.documents.get("c", "k", NOW)
    assert isinstance(found, Document)
    assert found.value == b"value"
    assert world.told == [True]


async def test_the_grace_ends_and_using_it_does_not_prolong_it(world: World) -> None:
    world.fail()
    world.now += 6
    await world.device()
    world.now += 4
    for asked in (world.device(), world.store.session("b_1"), world.documents.get("c", "k", NOW)):
        with pytest.raises(StoreDown):
            await asked


async def test_what_was_never_read_has_no_grace(world: World) -> None:
    world.fail()
    for asked in (world.store.device("d2"), world.store.session("b_2"), world.documents.get("c", "l", NOW)):
        with pytest.raises(StoreDown):
            await asked


async def test_a_bad_answer_is_never_given_again_nor_the_good_one_before_it(world: World) -> None:
    await world.switch.store.change_device(DEVICE.id, lambda record: record.revoke(NOW, "stolen"))
    await world.switch.store.revoke_session("b_1", NOW, "left")
    await world.switch.documents.delete("c", "k")
    await world.device()
    await world.store.session("b_1")
    await world.documents.get("c", "k", NOW)
    world.fail()
    for asked in (world.device(), world.store.session("b_1"), world.documents.get("c", "k", NOW)):
        with pytest.raises(StoreDown):
            await asked


async def test_nothing_is_written_or_taken_in_the_grace(world: World) -> None:
    world.fail()
    for asked in (
        lambda: world.store.add_device(DEVICE),
        lambda: world.store.put_session(SESSION),
        lambda: world.store.revoke_session("b_1", NOW, "left"),
        lambda: world.store.first_use("k", NOW, END),
        world.store.sessions,
        lambda: world.store.secrets("p"),
        world.store.ping,
        lambda: world.documents.overwrite("c", "k", b"", END),
        lambda: world.documents.take("c", "k", NOW),
        lambda: world.documents.list("c", "g", NOW),
    ):
        with pytest.raises(StoreDown):
            await asked()


async def test_what_was_to_be_ended_here_is_not_served_again_even_if_that_failed(world: World) -> None:
    world.fail()
    with pytest.raises(StoreDown):
        await world.store.revoke_session("b_1", NOW, "left")
    with pytest.raises(StoreDown):
        await world.store.session("b_1")
    with pytest.raises(StoreDown):
        await world.documents.delete("c", "k")
    with pytest.raises(StoreDown):
        await world.documents.get("c", "k", NOW)
    with pytest.raises(StoreDown):
        await world.store.change_device(DEVICE.id, lambda record: record.revoke(NOW, "stolen"))
    with pytest.raises(StoreDown):
        await world.device()


@pytest.mark.parametrize(
    ("news", "served"),
    [
        ([], "device session document"),
        ([Change(1, "session", "b_1")], "device"),
        ([Change(1, "session", "b_2")], "device session"),
        ([Change(1, "device", "d1")], "session document"),
        ([Change(1, "subject", "x")], ""),
        ([Change(1, "a kind of the future", "x")], ""),
        (None, ""),
    ],
)
async def test_what_a_change_was_heard_of_has_no_grace(world: World, news: list[Change] | None, served: str) -> None:
    world.switch.news = news
    assert await world.store.changes(0) == news
    world.fail()
    asked = {
        "device": world.device(),
        "session": world.store.session("b_1"),
        "document": world.documents.get("c", "k", NOW),
    }
    for name, one in asked.items():
        if name in served.split():
            assert await one is not None
        else:
            with pytest.raises(StoreDown):
                await one


async def test_a_document_that_ended_meanwhile_is_not_served(world: World) -> None:
    world.fail()
    with pytest.raises(StoreDown):
        await world.documents.get("c", "k", END)


async def test_a_store_that_lost_its_data_has_no_grace_even_when_it_is_down_later(world: World) -> None:
    world.fail(StoreLost("redis: it is empty"))
    with pytest.raises(StoreLost):
        await world.device()
    world.fail()
    with pytest.raises(StoreDown):
        await world.store.session("b_1")


async def test_it_is_over_when_the_store_answers(world: World) -> None:
    world.fail()
    await world.device()
    world.switch.error = None
    await world.device()
    assert world.told == [True, False]


def test_it_remembers_so_much_and_no_more() -> None:
    memory = StaleReadCache(10.0, clock=lambda: 0.0)
    for number in range(20_001):
        memory.answered(("session", str(number)), number, is_good=True)
    with pytest.raises(StoreDown):
        memory.instead_of(StoreDown(), ("session", "0"))
    assert memory.instead_of(StoreDown(), ("session", "20000")) == 20_000
