"""Places among the upstream connections: for each client, each upstream and each worker; requests wait for one."""

from __future__ import annotations

import asyncio

import h2.errors
import pytest

from tests.support.edge_upstreams import Http1Upstream, Seen, Talk

BOUNDS = [
    ({"limits": {"upstream_connections_per_client": 3}}, "client"),
    ({"limits": {"upstream_connections": 3}}, "worker"),
    ({"upstream": {"max_connections": 3}}, "upstream"),
]


@pytest.mark.parametrize("bound", [bound for bound, _ in BOUNDS], ids=[name for _, name in BOUNDS])
def test_requests_wait_for_a_place_among_the_upstream_connections(world, serve, connect2, bound):
    most = [0]

    async def slow(talk: Talk, seen: Seen) -> None:
        most.append(len(upstream._open))
        await asyncio.sleep(0.05)
        await talk.ok()

    upstream = serve(Http1Upstream(slow))
    client = connect2(world.edge(upstream.url, **bound))
    streams = [client.start() for _ in range(12)]
    assert [client.answer(stream).status for stream in streams] == [200] * 12
    assert 1 <= max(most) <= 3


def test_a_request_without_a_place_in_time_is_refused_and_the_upstream_stays_healthy(world, serve, connect2):
    async def never(talk: Talk, seen: Seen) -> None:
        if seen.target == "/never":
            await talk.reader.read()
        await talk.ok()

    upstream = serve(Http1Upstream(never))
    running = world.edge(
        upstream.url, limits={"upstream_connections_per_client": 1}, upstream={"connect_timeout_s": 0.3}
    )
    client = connect2(running)
    waiting = client.start("/never")
    late = client.answer(client.start("/"))
    assert (late.status, late.reason) == (503, "overloaded")
    assert running.edge.generation.upstreams["svc"].healthy == 1
    client.conn.reset_stream(waiting, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert client.ask("/").status == 200
    running.until(lambda: running.edge.client_slots.in_use("127.0.0.1") <= 1)


def test_a_client_that_leaves_gives_its_places_back(world, serve, connect2):
    async def never(talk: Talk, seen: Seen) -> None:
        await talk.reader.read()

    upstream = serve(Http1Upstream(never))
    running = world.edge(upstream.url, limits={"upstream_connections_per_client": 2})
    client = connect2(running)
    for _ in range(5):
        client.start()
    running.until(lambda: len(upstream._open) == 2)
    assert running.edge.client_slots.in_use("127.0.0.1") == 5
    client.close()
    running.until(lambda: not upstream._open)
    assert running.edge.client_slots.in_use("127.0.0.1") == 0
    running.until(lambda: running.edge.all_slots.in_use("") == 0)
