from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from gateway.adapters.http import HttpxClient
from gateway.identity.zitadel.access import AccessToken
from gateway.identity.zitadel.api import Zitadel
from gateway.identity.zitadel.reconcile import LEASE_S, SWEEP_S, Reconciler, Round
from gateway.identity.zitadel.webhooks import EventActor
from tests.support.zitadel_world import NOW, TOKEN, Clock, Ender, FakeZitadel, Memory, zitadel

ISSUER = "https://id.example.com"


class PendingRequest:
    def __init__(self) -> None:
        self.sids: list[str] = []

    async def held_sids(self, issuer: str, after: str, limit: int) -> Sequence[str]:
        assert issuer == ISSUER
        return [sid for sid in sorted(self.sids) if sid > after][:limit]


class World:
    def __init__(self, server: FakeZitadel, http: HttpxClient) -> None:
        self.server, self.clock, self.ender, self.memory, self.held = (
            server,
            Clock(),
            Ender(),
            Memory(),
            PendingRequest(),
        )
        self.api = Zitadel(ISSUER, http, AccessToken(TOKEN), server.url)
        self.actor = EventActor(ISSUER, self.ender, self.memory, self.clock, self.api)
        self.one, self.other = self.worker(), self.worker()

    def worker(self) -> Reconciler:
        return Reconciler(self.api, self.actor, self.ender, self.memory, self.held, self.clock)

    async def round(self, after_s: float = 1) -> Round:
        self.clock.now += after_s
        return await self.one.round()

    async def sweep(self) -> Round:
        return await self.round(SWEEP_S + 1)


@pytest.fixture
def server() -> Iterator[FakeZitadel]:
    with zitadel() as fake:
        yield fake


@pytest.fixture
async def world(server: FakeZitadel) -> AsyncIterator[World]:
    http = HttpxClient(timeout_s=3)
    yield World(server, http)
    await http.close()


async def test_an_event_that_no_push_brought_ends_the_sessions_once(world: World) -> None:
    await world.round()
    world.server.event("user.locked", "user", "42", 3, world.clock.now)
    assert (await world.round()).ended == 1
    assert (await world.round()).ended == 0
    assert world.ender.who == ["42"]


async def test_what_happened_before_the_first_round_is_past(world: World) -> None:
    world.server.event("user.locked", "user", "42", 3, NOW - 3_600)
    assert (await world.round()).events == 0


async def test_an_event_a_webhook_brought_is_not_done_again(world: World) -> None:
    await world.round()
    world.server.event("user.human.password.changed", "user", "42", 3, world.clock.now)
    page = await world.api.events(["user.human.password.changed"])
    assert await world.actor.act(page.events[0]) == 1  # type: ignore[union-attr]
    assert (await world.round()).ended == 0
    assert len(world.ender.ended) == 1


async def test_many_events_are_read_in_pages_and_none_twice(world: World) -> None:
    await world.round()
    for number in range(2_500):
        world.server.event("session.terminated", "session", f"s{number}", 1, world.clock.now + number / 10_000)
    told = await world.round()
    assert (told.events, told.ended, len(set(world.ender.who))) == (2_500, 2_500, 2_500)
    assert (await world.round()).events == 0


async def test_the_cursor_outlives_the_worker(world: World) -> None:
    await world.round()
    world.server.event("user.locked", "user", "42", 3, world.clock.now + 0.5)
    world.clock.now += 3_600
    told = await world.other.round()
    assert (told.is_runner, told.ended) == (True, 1)


async def test_a_cursor_that_cannot_be_read_is_made_anew(world: World) -> None:
    await world.round()
    await world.memory.overwrite("zitadel_cursor", ISSUER, b"\xff", world.clock.now + 100)
    assert (await world.round()).trouble == ""
    world.server.event("user.locked", "user", "42", 3, world.clock.now)
    assert (await world.round()).ended == 1


async def test_one_worker_at_a_time_runs(world: World) -> None:
    rounds = await asyncio.gather(world.one.round(), world.other.round())
    assert sorted(told.is_runner for told in rounds) == [False, True]
    holder, waiter = (world.one, world.other) if rounds[0].is_runner else (world.other, world.one)
    world.clock.now += LEASE_S - 1
    assert (await holder.round()).is_runner
    world.clock.now += LEASE_S - 1
    assert not (await waiter.round()).is_runner
    world.clock.now += 2
    assert (await waiter.round()).is_runner
    assert not (await holder.round()).is_runner


async def test_a_zitadel_that_is_down_delays_and_loses_nothing(world: World) -> None:
    await world.round()
    world.server.event("user.locked", "user", "42", 3, world.clock.now)
    world.server.down = True
    assert (await world.round()).trouble == "events: unreachable"
    world.server.down = False
    assert (await world.round(3_600)).ended == 1


async def test_a_store_that_is_down_delays_and_loses_nothing(world: World) -> None:
    await world.round()
    world.server.event("user.locked", "user", "42", 3, world.clock.now)
    world.memory.down = True
    assert (await world.round()).trouble == "store_down"
    world.memory.down = False
    world.ender.down = 1
    assert (await world.round()).trouble == "store_down"
    assert (await world.round()).ended == 1


async def test_the_cursor_waits_before_an_event_that_cannot_be_dealt_with(world: World) -> None:
    await world.round()
    grants = world.server
    grants.event("user.locked", "user", "1", 1, world.clock.now + 0.1)
    grants.event("user.grant.removed", "usergrant", "g1", 2, world.clock.now + 0.2)
    grants.event("user.locked", "user", "2", 1, world.clock.now + 0.3)
    real = grants.answer

    def no_history(asked):
        return (503, {}) if asked.body and asked.body.get("aggregateId") else real(asked)

    grants.answer = no_history  # type: ignore[method-assign]
    told = await world.round()
    assert (told.ended, told.trouble) == (1, "user.grant.removed: unreachable")
    grants.answer = real  # type: ignore[method-assign]
    grants.event("user.grant.added", "usergrant", "g1", 1, NOW - 9_000, {"userId": "7"})
    assert (await world.round()).ended == 2
    assert world.ender.who == ["1", "7", "2"]


async def test_a_session_that_is_gone_is_ended_at_the_second_look(world: World) -> None:
    world.held.sids = ["gone", "here", "V1_old"]
    world.server.session("here")
    first = await world.sweep()
    assert (first.swept, first.ended) == (2, 0)
    assert (await world.sweep()).ended == 1
    assert world.ender.ended == [("gone", None, "the identity provider has no such session")]


async def test_a_session_that_has_expired_there_is_ended(world: World) -> None:
    world.held.sids = ["old"]
    world.server.session("old", expires_at=NOW + 10)
    await world.sweep()
    await world.sweep()
    assert world.ender.who == ["old"]


async def test_a_session_the_search_only_lags_behind_with_goes_on(world: World) -> None:
    world.held.sids = ["new"]
    await world.sweep()
    world.server.session("new")
    await world.sweep()
    await world.sweep()
    assert world.ender.ended == []


async def test_sessions_the_gateway_may_not_read_are_not_taken_for_gone(world: World) -> None:
    world.held.sids = ["hidden"]
    world.server.answers["GET", "/v2/sessions/hidden"] = 403, {"code": 7, "message": "No matching permissions"}
    for _ in range(3):
        await world.sweep()
    assert world.ender.ended == []


async def test_a_sweep_of_many_sessions_goes_on_where_it_stopped(world: World) -> None:
    world.held.sids = [f"s{number:05}" for number in range(1_250)]
    for sid in world.held.sids:
        world.server.session(sid)
    assert (await world.sweep()).swept == 1_000
    assert (await world.round()).swept == 250
    assert (await world.round()).swept == 0
    del world.server.sessions["s00003"], world.server.sessions["s01200"]
    for _ in range(2):
        await world.sweep()
        await world.round()
    assert sorted(filter(None, world.ender.who)) == ["s00003", "s01200"]


async def test_the_loop_tells_of_every_round(world: World) -> None:
    heard: list[Round] = []
    enough = asyncio.Event()

    def hear(told: Round) -> None:
        heard.append(told)
        if len(heard) == 3:
            enough.set()

    task = asyncio.create_task(world.one.run(hear, interval_s=0.01))
    await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(told.is_runner and not told.trouble for told in heard)
