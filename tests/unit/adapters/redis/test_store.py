from __future__ import annotations

import asyncio
import contextlib
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.adapters.redis.documents import RedisDocuments
from gateway.adapters.redis.opening import ANCHOR, inspect_redis, open_redis
from gateway.adapters.redis.store import RedisStore
from gateway.adapters.sealing import Seal
from gateway.config import StateStore
from gateway.core.ports.documents import Document
from gateway.core.ports.stores import Change, StoreDown, StoreLost
from tests.support.changes_conformance import ChangesConformance
from tests.support.cost import cost_of
from tests.support.documents_conformance import END, DocumentsConformance
from tests.support.documents_conformance import NOW as FAKE_NOW
from tests.support.redis_server import RedisProcess, needs_redis, running
from tests.support.store_conformance import DEVICE, LIFE_S, NOW, SESSION, StoreConformance

pytestmark = needs_redis
KEY = bytes(range(32))
type Open = Callable[..., contextlib.AbstractAsyncContextManager[RedisStore]]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(process: RedisProcess) -> RedisProcess:
    process.cli("FLUSHALL")
    return process


@pytest.fixture
def clock() -> list[float]:
    return [FAKE_NOW]


@contextlib.asynccontextmanager
async def opened(
    server: RedisProcess, folder: Path, clock: Callable[[], float] = time.time, key: bytes = KEY
) -> AsyncIterator[RedisStore]:
    store = RedisStore(StateStore(kind="redis", address=server.address, timeout_ms=5_000), key, folder / "a", clock)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(server: RedisProcess, tmp_path: Path) -> AsyncIterator[RedisStore]:
    async with opened(server, tmp_path) as store:
        yield store


@pytest.fixture
async def other(store: RedisStore, server: RedisProcess, tmp_path: Path) -> AsyncIterator[RedisStore]:
    async with opened(server, tmp_path / "another machine") as other:
        yield other


class TestRedis(StoreConformance):
    pass


class TestRedisChanges(ChangesConformance):
    pass


class TestRedisDocuments(DocumentsConformance):
    @pytest.fixture
    async def documents(
        self, server: RedisProcess, tmp_path: Path, clock: list[float]
    ) -> AsyncIterator[RedisDocuments]:
        async with opened(server, tmp_path, lambda: clock[0]) as store:
            yield RedisDocuments(store)

    @pytest.fixture
    async def other(
        self, documents: RedisDocuments, server: RedisProcess, tmp_path: Path, clock: list[float]
    ) -> AsyncIterator[RedisDocuments]:
        async with opened(server, tmp_path / "another machine", lambda: clock[0]) as store:
            yield RedisDocuments(store)


# ---- what stands in Redis ----


async def test_nothing_that_names_a_person_stands_in_redis_in_clear(store: RedisStore, server: RedisProcess) -> None:
    documents = RedisDocuments(store)
    await store.add_device(replace(DEVICE, owner="canary-owner"))
    await store.put_session(replace(SESSION, subject="canary-subject", identity="canary@example"))
    await store.revoke_session("b_1", NOW, "canary why")
    await store.first_use("canary-jti", NOW, NOW + LIFE_S)
    await store.put_secret("p", "n", NOW, b"canary-secret")
    await store.announce("subject", "canary-subject")
    await documents.overwrite("c", "canary-key", b"canary-value", NOW + LIFE_S, group="canary-group")
    kept = b"".join(path.read_bytes() for path in server.folder.glob("appendonlydir/*"))
    assert b"gw:s:b_1" in kept
    assert b"canary" not in kept


async def test_a_store_does_not_open_with_another_master_key(
    store: RedisStore, server: RedisProcess, tmp_path: Path
) -> None:
    kept = server.cli("DBSIZE")
    with pytest.raises(StoreDown, match="another master key"):
        async with opened(server, tmp_path / "stranger", key=bytes(32)):
            pass
    assert server.cli("DBSIZE") == kept
    assert not (tmp_path / "stranger" / "a").exists()


async def test_a_value_sealed_with_another_master_key_does_not_open(store: RedisStore) -> None:
    await store.put_secret("p", "n", NOW, b"value")
    await store.put_session(SESSION)
    store.seal = Seal(bytes(32))
    with pytest.raises(StoreDown):
        await store.secrets("p")
    with pytest.raises(StoreDown):
        await store.session("b_1")


async def test_a_value_that_was_moved_does_not_open(store: RedisStore) -> None:
    documents = RedisDocuments(store)
    await documents.overwrite("c", "one", b"1", NOW + LIFE_S)
    await documents.overwrite("c", "two", b"2", NOW + LIFE_S)
    keys = [b"gw:d:" + store.hidden("document", "c", key) for key in ("one", "two")]
    await store.write("COPY", *keys, "REPLACE")
    with pytest.raises(StoreDown):
        await documents.get("c", "two", NOW)


@pytest.mark.parametrize("garbage", [b"", b"\x00" * 31, b"\x00" * 200])
async def test_a_damaged_value_is_store_down(store: RedisStore, garbage: bytes) -> None:
    documents = RedisDocuments(store)
    await store.write("SET", "gw:s:b_1", garbage)
    await store.write("SET", b"gw:d:" + store.hidden("document", "c", "k"), garbage)
    with pytest.raises(StoreDown):
        await store.session("b_1")
    with pytest.raises(StoreDown):
        if await documents.get("c", "k", -1.0) is None:
            raise AssertionError
    await store.write("HSET", "gw:session", "not", "a session")
    await store.write("DEL", "gw:s:b_1")
    await store.write("HSET", "gw:s:b_1", "of another", "type")
    with pytest.raises(StoreDown, match="WRONGTYPE"):
        await store.session("b_1")


async def test_what_has_ended_is_forgotten_by_the_server(store: RedisStore, server: RedisProcess) -> None:
    documents = RedisDocuments(store)
    now = time.time()
    await store.put_session(replace(SESSION, expires_at=now + 10))
    await store.put_session(replace(SESSION, id="b_2", expires_at=now + 10))
    await store.revoke_session("b_2", now, "left")
    await store.first_use("k", now, now + 10)
    await store.add_enrolment("aa", "d1", now + 10)
    await documents.overwrite("c", "k", b"1", now + 10, group="g")
    left_s = {key: int(server.cli("TTL", key)) for key in ("gw:s:b_1", "gw:s:b_2", "gw:e:aa")}
    assert 60 < left_s["gw:s:b_1"] <= 70
    assert 60 < left_s["gw:e:aa"] <= 70
    assert 400 * 86_400 < left_s["gw:s:b_2"] <= 400 * 86_400 + 70
    lasting = {"gw:epoch", "gw:seq", "gw:changes", "gw:version"}
    for key in await store.read("KEYS", "gw:*"):
        assert key.decode("latin-1") in lasting or await store.read("PTTL", key) > 0, key


async def test_a_groups_ended_documents_do_not_pile_up(server: RedisProcess, tmp_path: Path) -> None:
    clock = [time.time()]
    async with opened(server, tmp_path, lambda: clock[0]) as store:
        documents = RedisDocuments(store)
        await documents.overwrite("c", "long", b"1", clock[0] + 900, group="g")
        for number in range(300):
            await documents.overwrite("c", f"k{number}", b"1", clock[0] - 1, group="g")
            await store.write("DEL", b"gw:d:" + store.hidden("document", "c", f"k{number}"))
        assert await store.read("ZCARD", b"gw:g:" + store.hidden("group", "c", "g")) < 30
        assert [found.key for found in await documents.list("c", "g", clock[0])] == ["long"]


async def test_a_session_takes_less_than_a_kibibyte(store: RedisStore, server: RedisProcess) -> None:
    def used() -> int:
        lines = dict(line.partition(":")[::2] for line in server.cli("INFO", "memory").splitlines())
        return int(lines["used_memory"])

    before = used()
    count = 4_000
    records = (
        replace(
            SESSION,
            id=f"b_{number:032}",
            issuer="https://login.example.com/oauth/v2",
            subject=f"{number:018}",
            identity=f"firstname.lastname{number}@example.com",
            device_id=f"device-{number:010}",
            expires_at=NOW + 43_200,
        )
        for number in range(count)
    )
    await asyncio.gather(*(store.put_session(record) for record in records))
    assert (used() - before) / count < 800  # 640 on a quiet server: the rest is the buffer of the append-only file


# ---- changes ----


async def test_ten_thousand_changes_are_kept_and_older_ones_of_the_last_hour(
    server: RedisProcess, tmp_path: Path
) -> None:
    clock = [time.time()]
    async with opened(server, tmp_path, lambda: clock[0]) as store:
        await asyncio.gather(*(store.announce("session", "b") for _ in range(2_000)))
        clock[0] += 3_000
        await asyncio.gather(*(store.announce("session", "b") for _ in range(10_000)))
        found = await store.changes(0)
        assert found is not None
        assert len(found) == 12_000
        clock[0] += 1_000  # the first 2,000 are older than an hour now
        await asyncio.gather(*(store.announce("session", "b") for _ in range(1_000)))
        assert await store.changes(0) is None
        kept = await store.changes(3_000)
        assert kept is not None
        assert [kept[0].seq, kept[-1].seq] == [3_001, 13_000]


async def test_a_shout_that_was_missed_is_made_good_by_a_look(
    store: RedisStore, other: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await other.wait(0, 0.05)
    assert other._shout is not None
    monkeypatch.setattr(other._shout, "set", lambda: None)
    waiting = asyncio.create_task(other.wait(0, 10.0))
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await store.announce("all", "")
    await waiting
    assert time.monotonic() - started < 5
    assert await other.changes(0) == [Change(1, "all", "")]


async def test_a_number_that_was_given_again_means_that_everything_changed(
    store: RedisStore, other: RedisStore
) -> None:
    """As after a failover to a replica that had not heard of changes 2 and 3, which nobody acknowledged."""
    for key in ("one", "two", "three"):
        await store.announce("session", key)
    assert await other.latest() == 3
    found = await store.changes(1)
    assert found is not None
    assert len(found) == 2
    await store.write("DEL", "gw:changes")
    await store.write("SET", "gw:seq", 1)
    for key in ("another", "and another"):
        await store.announce("session", key)
    for follower in (store, other):
        started = time.monotonic()
        await follower.wait(3, 5.0)
        assert time.monotonic() - started < 4
        assert await follower.changes(3) is None
    assert await other.latest() == 3
    await store.announce("session", "at last")
    assert await other.changes(3) == [Change(4, "session", "at last")]


async def test_a_stream_that_was_removed_means_that_everything_changed(store: RedisStore) -> None:
    await store.announce("all", "")
    await store.write("DEL", "gw:changes")
    assert await store.changes(0) is None


# ---- opening ----


async def test_everything_is_there_after_a_restart(process: RedisProcess, server: RedisProcess, tmp_path: Path) -> None:
    async with opened(server, tmp_path) as store:
        await store.add_device(DEVICE)
        await store.put_session(SESSION)
        await store.revoke_session("b_1", NOW, "left")
        process.kill()
        process.start()
        record = await store.session("b_1")
        assert record is not None
        assert record.revoked_at == NOW
        assert await store.device("d1") == DEVICE
        await store.ping()


async def test_an_empty_store_is_not_taken_for_the_one_that_was_known(server: RedisProcess, tmp_path: Path) -> None:
    async with opened(server, tmp_path):
        pass
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    server.cli("FLUSHALL")
    with pytest.raises(StoreLost, match="it is empty"):
        async with opened(server, tmp_path):
            pass
    (tmp_path / "a").unlink()  # as the file itself says
    async with opened(server, tmp_path) as store:
        assert await store.latest() == 0


async def test_another_store_is_not_taken_for_the_one_that_was_known(server: RedisProcess, tmp_path: Path) -> None:
    async with opened(server, tmp_path):
        pass
    server.cli("SET", "gw:epoch", "another")
    with pytest.raises(StoreLost, match="another store"):
        async with opened(server, tmp_path):
            pass


async def test_several_that_start_at_once_agree_on_the_epoch(server: RedisProcess, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        opening = (stack.enter_async_context(opened(server, tmp_path / str(n % 2))) for n in range(8))
        stores = await asyncio.gather(*opening)
        await asyncio.gather(*(store.ping() for store in stores))
    assert (tmp_path / "0" / "a").read_bytes() == (tmp_path / "1" / "a").read_bytes()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["--appendonly", "no"], "appendonly yes"),
        (["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"], "noeviction"),
        (["--replicaof", "127.0.0.1", "1"], "replica"),
    ],
)
async def test_a_server_that_may_forget_is_refused(tmp_path: Path, setting: list[str], message: str) -> None:
    with running(tmp_path / "redis", *setting) as server, pytest.raises(StoreDown, match=message):
        async with opened(server, tmp_path):
            pass


async def test_what_an_operator_should_know_is_said(store: RedisStore, server: RedisProcess) -> None:
    assert [fix[:8] for _, fix in await store.weaknesses()] == ["Give the", "Add two "]
    server.cli("CONFIG", "SET", "appendfsync", "everysec")
    assert [fix[:8] for _, fix in await store.weaknesses()] == ["Give the", "Write `a", "Add two "]
    server.cli("CONFIG", "SET", "appendfsync", "always")


async def test_looking_at_a_store_begins_none(server: RedisProcess, tmp_path: Path) -> None:
    settings = StateStore(kind="redis", address=server.address)
    assert await inspect_redis(settings, KEY, tmp_path)
    assert server.cli("KEYS", "*").split() == ["gw:pulse"]
    assert not (tmp_path / ANCHOR).exists()
    async with opened(server, tmp_path / "first"):
        assert await inspect_redis(settings, KEY, tmp_path)
        with pytest.raises(StoreDown, match="another master key"):
            await inspect_redis(settings, bytes(32), tmp_path)


async def test_open_redis_gives_store_and_documents(server: RedisProcess, tmp_path: Path) -> None:
    settings = StateStore(kind="redis", address=server.address)
    found = await open_redis(settings, KEY, tmp_path)
    await found.store.add_device(DEVICE)
    assert await found.store.device("d1") == DEVICE
    await found.documents.overwrite("c", "k", b"1", END)
    kept = await found.documents.get("c", "k", FAKE_NOW)
    assert isinstance(kept, Document)
    await found.store.close()
    with pytest.raises(StoreDown, match="closed"):
        await found.store.device("d1")


async def test_a_look_up_on_the_hot_path_is_quick(store: RedisStore) -> None:
    await store.add_device(DEVICE)
    await store.put_session(SESSION)
    assert await cost_of(lambda: store.device("d1")) < 100  # 10
    assert await cost_of(lambda: store.session("b_1")) < 100
