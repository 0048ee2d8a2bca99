"""Places for upstream connections: taken at once or in line, given back by whoever leaves."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.edge.mitm.upstream_slots import Slots


def test_a_place_is_taken_at_once_until_there_is_none() -> None:
    slots = Slots(lambda: 2)
    assert [slots.try_acquire("a") for _ in range(3)] == [True, True, False]
    assert slots.is_full("a")
    assert slots.try_acquire("b")
    slots.release("a")
    assert slots.try_acquire("a")


def test_a_key_that_nobody_uses_is_forgotten() -> None:
    slots = Slots(lambda: 1)
    slots.try_acquire("a")
    slots.release("a")
    assert slots.in_use("a") == 0
    assert slots._places == {}


def test_who_waits_gets_the_place_in_order_and_before_who_comes_later() -> None:
    async def run() -> None:
        slots, order = Slots(lambda: 1), []
        assert slots.try_acquire("a")

        async def wait(name: str) -> None:
            await slots.acquire("a")
            order.append(name)

        waiting = [asyncio.create_task(wait(name)) for name in ("first", "second")]
        await asyncio.sleep(0)
        slots.release("a")
        assert not slots.try_acquire("a")
        await waiting[0]
        slots.release("a")
        await waiting[1]
        assert order == ["first", "second"]
        slots.release("a")
        assert slots.in_use("a") == 0

    asyncio.run(run())


def test_who_is_cancelled_in_line_leaves_nothing_behind() -> None:
    async def run() -> None:
        slots = Slots(lambda: 1)
        slots.try_acquire("a")
        waiting = asyncio.create_task(slots.acquire("a"))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        slots.release("a")
        assert slots.in_use("a") == 0
        assert slots.try_acquire("a")

    asyncio.run(run())
