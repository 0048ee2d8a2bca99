"""gRPC through the edge: streams in both directions, trailers, and denials that a gRPC client understands."""

from __future__ import annotations

import asyncio
import struct

import pytest

from gateway.core.decision import Decision
from tests.support.edge_upstreams import H2Talk, Http2Upstream, Seen
from tests.support.edge_world import Ports

CALL = [("content-type", "application/grpc+proto"), ("te", "trailers"), ("grpc-timeout", "5S")]


def message(payload: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(payload)) + payload


async def echo(talk: H2Talk, stream: int, seen: Seen) -> None:
    """A bidirectional stream: every message goes back as it comes, then the status in trailers."""
    await talk.head(stream, 200, [("content-type", "application/grpc+proto")])
    sent = 0
    while True:
        async with talk.changed:
            while len(seen.body) <= sent and not seen.ended:
                await talk.changed.wait()
        piece = seen.body[sent:]
        sent += len(piece)
        await talk.data(stream, piece)
        if seen.ended and sent == len(seen.body):
            break
    await talk.trailers(stream, [("grpc-status", "0"), ("grpc-message", "fine")])


@pytest.fixture
def grpc(world, serve):
    return world.edge(serve(Http2Upstream(echo)).url, upstream={"protocol": "h2"})


def test_a_bidirectional_stream_flows_message_by_message(grpc, connect2):
    client = connect2(grpc)
    stream = client.start("/echo.Echo/Chat", "POST", CALL, end=False)
    sent = b""
    for number in range(5):
        piece = message(b"hello %d" % number)
        client.data(stream, piece)
        sent += piece
        while stream not in client.answers or len(client.answers[stream].body) < len(sent):
            client.read()
        assert client.answers[stream].body == sent
    client.conn.end_stream(stream)
    client.flush()
    found = client.answer(stream)
    assert (found.status, found.body) == (200, sent)
    assert found.trailers == [("grpc-status", "0"), ("grpc-message", "fine")]


def test_te_trailers_reaches_a_grpc_upstream(world, serve, connect2):
    upstream = serve(Http2Upstream(echo))
    client = connect2(world.edge(upstream.url, upstream={"protocol": "h2"}))
    client.ask("/a.B/C", "POST", CALL, message(b"x"))
    [seen] = upstream.seen
    assert (seen.get("te"), seen.get("grpc-timeout")) == ("trailers", "5S")
    assert seen.get("x-gateway-decision")


def test_many_calls_share_a_connection(grpc, connect2):
    client = connect2(grpc)
    streams = [client.start("/a.B/C", "POST", CALL, message(b"%d" % n)) for n in range(20)]
    for number, stream in enumerate(streams):
        assert client.answer(stream).body == message(b"%d" % number)


def test_a_trailers_only_error_passes(world, serve, connect2):
    async def fail(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.head(stream, 200, [("content-type", "application/grpc"), ("grpc-status", "5")], end=True)

    client = connect2(world.edge(serve(Http2Upstream(fail)).url, upstream={"protocol": "h2"}))
    stream = client.start("/a.B/C", "POST", CALL, end=False)
    found = client.answer(stream)
    assert (found.status, found.get("grpc-status"), found.complete) == (200, "5", True)


def test_an_error_in_the_middle_of_an_upload_passes_with_its_status(world, serve, connect2):
    async def fail(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.received(stream, 6)
        await talk.head(stream, 200, [("content-type", "application/grpc")])
        await talk.trailers(stream, [("grpc-status", "8")])

    client = connect2(world.edge(serve(Http2Upstream(fail)).url, upstream={"protocol": "h2"}))
    stream = client.start("/a.B/C", "POST", CALL, end=False)
    client.data(stream, message(b"x"))
    found = client.answer(stream)
    assert (found.status, found.trailers, found.complete) == (200, [("grpc-status", "8")], True)


def test_a_denied_call_gets_a_grpc_status(world, serve, connect2):
    upstream = serve(Http2Upstream(echo))
    ports = Ports()
    ports.decision = Decision("deny", ("role_missing",))
    client = connect2(world.edge(upstream.url, ports=ports, upstream={"protocol": "h2"}))
    found = client.ask("/a.B/C", "POST", CALL, message(b"x"))
    assert (found.status, found.get("grpc-status"), found.get("content-type")) == (200, "7", "application/grpc")
    assert found.get(
        "grpc-message",
    ).startswith("role_missing")
    assert found.body == b""
    assert upstream.received == b""


def test_an_unreachable_upstream_is_unavailable(world, serve, connect2):
    upstream = serve(Http2Upstream(echo))
    running = world.edge(upstream.url, upstream={"protocol": "h2"})
    world.run(upstream.stop())
    found = connect2(running).ask("/a.B/C", "POST", CALL, message(b"x"))
    assert (found.status, found.get("grpc-status")) == (200, "14")


def test_a_stream_with_long_silences_is_not_cut(world, serve, connect2):
    async def slow(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.head(stream, 200, [("content-type", "application/grpc")])
        await talk.ended(stream)
        await talk.trailers(stream, [("grpc-status", "0")])

    running = world.edge(
        serve(Http2Upstream(slow)).url,
        upstream={"protocol": "h2", "response_timeout_s": 0.3},
        limits={"stall_s": 0.3, "idle_s": 0.3},
    )
    client = connect2(running)
    stream = client.start("/a.B/C", "POST", CALL, end=False)
    world.run(asyncio.sleep(1.7))
    client.data(stream, message(b"x"), end=True)
    assert client.answer(stream).trailers == [("grpc-status", "0")]
