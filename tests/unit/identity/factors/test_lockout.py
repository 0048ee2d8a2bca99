from __future__ import annotations

import asyncio

import pytest

from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import Refusal
from gateway.identity.factors.lockout import Lockout
from tests.support.login_world import Clock, MemoryDocuments


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attempts(clock: Clock) -> Lockout:
    return Lockout(MemoryDocuments(clock), "attempts", "factor_locked", clock)


async def fail(attempts: Lockout, times: int, key: str = "k") -> list[Refusal | None]:
    return [await attempts.count(key, 5) for _ in range(times)]


async def test_the_fifth_failure_in_five_minutes_locks(attempts: Lockout, clock: Clock) -> None:
    assert await fail(attempts, 4) == [None] * 4
    assert await attempts.locked("k") is None
    assert await fail(attempts, 1) == [None]
    assert await attempts.locked("k") == Refusal("factor_locked", "for 300 s more")
    assert await attempts.count("k", 5) == Refusal("factor_locked", "for 300 s more")
    assert await attempts.locked("another") is None
    clock.now += 299.9
    assert await attempts.locked("k") is not None
    clock.now += 0.1
    assert await attempts.locked("k") is None
    assert await attempts.count("k", 5) is None


async def test_failures_that_are_far_apart_do_not_lock(attempts: Lockout, clock: Clock) -> None:
    for _ in range(50):
        assert await attempts.count("k", 5) is None
        clock.now += 75


async def test_every_further_lock_is_twice_as_long_up_to_a_day(attempts: Lockout, clock: Clock) -> None:
    spans = []
    for _ in range(11):
        await fail(attempts, 5)
        started = clock()
        while await attempts.locked("k"):
            clock.now += 10
        spans.append(clock() - started)
    assert spans == [300 * 2**n for n in range(9)] + [86_400.0] * 2


async def test_a_day_without_an_attempt_begins_anew(attempts: Lockout, clock: Clock) -> None:
    await fail(attempts, 5)
    clock.now += 300
    await fail(attempts, 5)
    clock.now += 600 + 86_400
    await fail(attempts, 5)
    assert await attempts.locked("k") == Refusal("factor_locked", "for 300 s more")


async def test_a_success_begins_anew(attempts: Lockout) -> None:
    await fail(attempts, 4)
    await attempts.forget("k")
    assert await fail(attempts, 5) == [None] * 5
    assert await attempts.locked("k") is not None


async def test_many_at_the_same_time_are_not_more_than_many_in_turn(attempts: Lockout) -> None:
    counted = await asyncio.gather(*(attempts.count("k", 5) for _ in range(40)))
    assert counted.count(None) == 5
    assert {found.reason for found in counted if found is not None} == {"factor_locked"}


class Down(MemoryDocuments):
    async def get(self, *_: object) -> None:
        raise StoreDown("no disk")


async def test_a_count_that_cannot_be_read_is_store_down(clock: Clock) -> None:
    attempts = Lockout(Down(clock), "attempts", "factor_locked", clock)
    with pytest.raises(StoreDown):
        await attempts.count("k", 5)
    with pytest.raises(StoreDown):
        await attempts.locked("k")


class Contended(MemoryDocuments):
    async def put(self, *_: object, **__: object) -> bool:
        return False


async def test_a_count_that_cannot_be_written_is_a_refusal(clock: Clock) -> None:
    attempts = Lockout(Contended(clock), "attempts", "factor_locked", clock)
    assert await attempts.count("k", 5) == Refusal("factor_locked", "too much at the same time")
