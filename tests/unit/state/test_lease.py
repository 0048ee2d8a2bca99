"""Leases and locks among workers, and what earlier versions wrote of them."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.state.lease import Lease, Locks
from tests.support.issuer_world import Clock
from tests.support.login_world import MemoryDocuments


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def documents(clock: Clock) -> MemoryDocuments:
    return MemoryDocuments(clock)


def lease(documents: MemoryDocuments, owner: str, renew_s: float = float("inf")) -> Lease:
    return Lease(documents=documents, key="work", owner=owner, life_s=15.0, clock=documents.clock, renew_s=renew_s)


async def test_one_worker_runs_it_until_it_stops_renewing(documents: MemoryDocuments, clock: Clock) -> None:
    one, two = lease(documents, "one"), lease(documents, "two")
    assert [await one.hold(), await two.hold()] == [True, False]
    clock.pass_(14)
    assert [await one.hold(), await two.hold()] == [True, False]
    clock.pass_(14)
    assert await two.hold() is False
    clock.pass_(1)
    assert [await two.hold(), await one.hold()] == [True, False]


async def test_of_many_workers_at_once_one_gets_it(documents: MemoryDocuments) -> None:
    held = await asyncio.gather(*(lease(documents, f"worker-{number}").hold() for number in range(20)))
    assert held.count(True) == 1


async def test_a_lease_is_written_again_only_when_it_has_to_be(documents: MemoryDocuments, clock: Clock) -> None:
    holder = lease(documents, "one", renew_s=7.5)
    assert await holder.hold()
    first = (await documents.get("lease", "work", clock())).version  # type: ignore[union-attr]
    clock.pass_(7)
    assert await holder.hold()
    assert (await documents.get("lease", "work", clock())).version == first  # type: ignore[union-attr]
    clock.pass_(1)
    assert await holder.hold()
    assert (await documents.get("lease", "work", clock())).version > first  # type: ignore[union-attr]


async def test_a_lease_from_before_the_clock_was_set_back_is_over(documents: MemoryDocuments, clock: Clock) -> None:
    assert await lease(documents, "one").hold()
    clock.pass_(-3_600)
    assert await lease(documents, "two").hold()


@pytest.mark.parametrize("value", [b"\xff", b"[]", b"{}", b'{"name": "one"}', b'{"name": "one", "until": "soon"}'])
async def test_a_lease_that_cannot_be_read_is_nobodys(documents: MemoryDocuments, clock: Clock, value: bytes) -> None:
    await documents.overwrite("lease", "work", value, clock() + 60)
    assert await lease(documents, "two").hold()


async def test_a_lease_is_written_as_earlier_versions_read_it(documents: MemoryDocuments, clock: Clock) -> None:
    assert await lease(documents, "one").hold()
    assert documents.of("lease") == [{"name": "one", "until": clock() + 15}]
    value = json.dumps({"name": "old version", "until": clock() + 10}).encode()
    await documents.overwrite("lease", "work", value, clock() + 1e6)
    assert not await lease(documents, "one").hold()


async def test_a_lock_is_one_owners_until_it_is_given_back_or_over(documents: MemoryDocuments, clock: Clock) -> None:
    locks = Locks(documents=documents, life_s=20.0, clock=clock)
    assert [await locks.acquire("k", "one"), await locks.acquire("k", "two")] == [True, False]
    await locks.release("k", "two")
    assert not await locks.acquire("k", "two")
    await locks.release("k", "one")
    assert await locks.acquire("k", "two")
    clock.pass_(20)
    assert await locks.acquire("k", "three")
    await locks.release("k", "two")
    assert not await locks.acquire("k", "four")
