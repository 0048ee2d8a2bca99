"""What is remembered, in a real store: how seldom it is written, how small it is, and what leaves no trace."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.core.decision import NO_SIGNAL
from gateway.risk.memory import COLLECTIONS, RiskMemory
from gateway.risk.scoring import digest
from tests.support.risk_world import SESSION, SYDNEY, names, stored_keys


async def test_a_steady_session_is_written_rarely(world: Any) -> None:
    puts = []
    write = world.documents.put

    async def put(collection: str, *args: Any, **kwargs: Any) -> bool:
        puts.append(collection)
        return bool(await write(collection, *args, **kwargs))

    world.documents.put = put
    for _ in range(100):  # ten minutes
        await world.ask(later=6)
    assert puts.count("risk_session") <= 25
    assert puts.count("risk_profile") <= 4
    assert puts.count("risk_population") == 0


async def test_a_zero_log_route_leaves_no_trace_and_still_notices_a_second_holder(world: Any) -> None:
    for _ in range(3):
        assert await world.ask(host="a.shop.example") is NO_SIGNAL
    report = await world.thief(host="a.shop.example", later=1)
    assert report.level == "high"
    assert not any(name.startswith("new_") for name in names(report))
    for collection in COLLECTIONS.values():
        assert [key async for key in stored_keys(world, collection)] == []
    assert await world.assessor.history("https://id", "ann") == {}


async def test_what_a_session_costs_in_the_store_is_small(world: Any) -> None:
    await world.ask()
    memory = RiskMemory(world.documents, world.clock.wall)

    document = await world.documents.get("risk_session", digest(SESSION.id)[:16], world.clock.wall())
    assert document is not None
    assert len(document.value) < 700
    assert (await memory.read("session", "nobody")).parts == {}


async def test_workers_that_write_at_the_same_time_lose_nothing(world: Any) -> None:
    first, second = world.another(), world.another()
    for number in range(6):
        first.record_failure("login_failed", "198.51.100.9", SYDNEY, account=f"a{number}")
        second.record_failure("login_failed", "198.51.100.9", SYDNEY, account=f"b{number}")

    await asyncio.gather(first.flush(), second.flush())
    remembered = await RiskMemory(world.documents, world.clock.wall).read("network", "198.51.100.0/24")
    assert len(remembered.of("password_spraying")) == 12
