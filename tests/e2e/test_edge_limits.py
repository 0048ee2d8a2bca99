"""Limits: what is too large, too slow, too much, is refused or cut, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time

import h2.errors
import pytest

from tests.support.edge_clients import dial
from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import HOST, Ports

HEAD = f"HTTP/1.1\r\nhost: {HOST}\r\n"
MANY = 1 << 26


async def pour(talk: Talk, seen: Seen) -> None:
    """Far more than all buffers hold."""
    await talk.send(f"HTTP/1.1 200 OK\r\ncontent-length: {MANY}\r\n\r\n")
    for _ in range(MANY >> 16):
        await talk.send(b"x" * (1 << 16))


def took(start: float) -> float:
    return time.monotonic() - start


def waiting(connection) -> int:
    """How much waits for the windows of an HTTP/2 client."""
    client = connection.http.connections.get(connection.client)
    return sum(client.backlog().values()) if client else 0


# ---- heads ----


def test_a_head_up_to_the_limit_is_served(world, upstream, connect):
    client = connect(world.edge(upstream.url, limits={"header_kib": 4, "header_count": 20}))
    assert client.ask(headers=[("x", "y" * 3900)]).status == 200
    assert client.ask(headers=[(f"x-{n}", "y") for n in range(19)]).status == 200


@pytest.mark.parametrize("field", [[("x", "y" * 5000)], [(f"x{n}", "y" * 100) for n in range(50)]], ids=["one", "many"])
def test_a_head_over_the_size_is_refused(world, upstream, connect, field):
    client = connect(world.edge(upstream.url, limits={"header_kib": 4}))
    found = client.ask(headers=field)
    assert (found.status, found.reason) == (431, "headers_too_large")
    assert client.closed()
    assert upstream.received == b""


def test_more_fields_than_allowed_are_refused(world, upstream, connect, connect2):
    running = world.edge(upstream.url, limits={"header_count": 20})
    fields = [(f"x-{n}", "y") for n in range(30)]
    assert connect(running).ask(headers=fields).status == 431
    assert connect2(running).ask(headers=fields).status == 431
    assert upstream.received == b""


def test_a_target_that_is_too_long_is_refused(edge, upstream, connect, connect2):
    assert connect(edge).ask("/" + "a" * 9000).status == 431
    assert connect2(edge).ask("/" + "a" * 9000).status == 431
    assert upstream.received == b""


def test_a_head_that_never_ends_is_refused_before_it_fills_memory(edge, upstream, connect):
    client = connect(edge)
    client.send(f"GET / {HEAD}")
    with contextlib.suppress(OSError):
        for _ in range(1000):
            client.send("x: " + "y" * 1000 + "\r\n")
    assert client.answer().status == 431
    assert upstream.received == b""


def test_an_http2_head_over_the_size_is_refused(world, upstream, connect2):
    client = connect2(world.edge(upstream.url, limits={"header_kib": 4}))
    stream = client.start(headers=[(f"x-{n}", "y" * 500) for n in range(20)])
    while stream not in client.ended and not client.gone:
        client.read()
    assert client.gone or client.answers[stream].status == 431
    assert upstream.received == b""


def test_an_http2_head_that_never_ends_is_cut(edge, upstream, connect2):
    client = connect2(edge)
    block = client.conn.encoder.encode([(":method", "GET"), (":path", "/")])
    frame = struct.pack(">I", len(block))[1:] + b"\x01\x00" + struct.pack(">I", 1) + block
    client.sock.sendall(frame)
    more = struct.pack(">I", 10_000)[1:] + b"\x09\x00" + struct.pack(">I", 1) + b"\x00" * 10_000
    with contextlib.suppress(OSError):
        for _ in range(2000):
            client.sock.sendall(more)
    client.until_gone()
    assert upstream.received == b""


# ---- time ----


def test_a_handshake_that_takes_too_long_is_cut(world, upstream):
    running = world.edge(upstream.url, limits={"handshake_s": 0.3})
    with socket.create_connection(("127.0.0.1", running.port), 5) as slow:
        slow.sendall(b"\x16\x03\x01")
        start = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert slow.recv(100) == b""
    assert took(start) < 2
    running.until(lambda: running.counts.handshakes == ["failed"])


def test_a_client_hello_that_never_ends_is_cut(edge):
    with socket.create_connection(("127.0.0.1", edge.port), 5) as endless:
        record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + b"\0" * 16_380
        with pytest.raises(OSError):  # noqa: PT011  (a reset or a broken pipe)
            for _ in range(1000):
                endless.sendall(record)
                record = b"\x16\x03\x01\x40\x00" + b"\0" * 16_384
                time.sleep(0.002)
    edge.until(lambda: edge.counts.open == 0)


@pytest.mark.parametrize(
    "drip", [b"", struct.pack(">I", 0)[1:] + b"\x09\x00" + struct.pack(">I", 1)], ids=["", "drips"]
)
def test_an_http2_header_block_that_does_not_end_is_cut_in_time(world, upstream, connect2, drip):
    client = connect2(world.edge(upstream.url, limits={"header_s": 0.5, "idle_s": 30}))
    start = time.monotonic()
    client.sock.sendall(struct.pack(">I", 1)[1:] + b"\x01\x00" + struct.pack(">I", 1) + b"\x82")
    client.sock.settimeout(0.2)
    while not client.gone and took(start) < 5:
        with contextlib.suppress(OSError):
            client.sock.sendall(drip)
        with contextlib.suppress(TimeoutError):
            client.read()
    assert client.gone
    assert took(start) < 3
    assert upstream.received == b""


def test_an_http2_frame_that_is_too_large_is_refused_at_its_header(edge, connect2):
    client = connect2(edge)
    client.sock.sendall(struct.pack(">I", (1 << 14) + 1)[1:] + b"\x00\x00" + struct.pack(">I", 1))
    assert client.until_gone() == h2.errors.ErrorCodes.FRAME_SIZE_ERROR


def test_a_request_that_is_reset_in_the_same_read_does_not_stay_at_the_upstream(world, serve, connect2):
    async def never(talk: Talk, seen: Seen) -> None:
        await talk.reader.read()

    upstream = serve(Http1Upstream(never))
    running = world.edge(upstream.url)
    client = connect2(running)
    for _ in range(40):
        stream = client.conn.get_next_available_stream_id()
        pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")]
        client.conn.send_headers(stream, pseudo, end_stream=True)
        client.conn.reset_stream(stream)
    client.flush()
    assert client.ask("/.gateway/health").status == 200
    running.until(lambda: not upstream._open)
    running.until(lambda: all(not connection.exchanges for connection in running.edge.connections))


def test_a_long_http2_connection_does_not_grow_with_its_requests(world, upstream2, connect2):
    running = world.edge(upstream2.url, upstream={"protocol": "h2"})
    client = connect2(running)
    for _ in range(1500):
        assert client.ask().status == 200
    [connection] = running.edge.connections
    codecs = [getattr(child, "child_layer", child) for child in connection.http.connections.values()]
    assert len(codecs) == 2
    for codec in codecs:
        assert len(codec.h2_conn._closed_streams) <= 1 << 10
        assert len(codec.streams) <= 2
    assert len(codecs[1].our_stream_id) <= 2
    assert len(codecs[1].their_stream_id) <= 2


def test_a_head_that_drips_is_cut(world, upstream, connect):
    client = connect(world.edge(upstream.url, limits={"header_s": 0.4, "idle_s": 30}))
    start = time.monotonic()
    client.send(f"GET / {HEAD}")
    client.sock.settimeout(0.05)
    alive = True
    while alive and took(start) < 5:
        try:
            client.send("x")
            alive = client.more()
        except TimeoutError:
            continue
        except OSError:
            alive = False
    assert not alive
    assert took(start) < 3
    assert upstream.received == b""


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_an_idle_connection_is_closed_politely(world, upstream, request, kind):
    client = request.getfixturevalue(kind)(world.edge(upstream.url, limits={"idle_s": 0.3}))
    assert client.ask().status == 200
    start = time.monotonic()
    if kind == "connect":
        assert client.closed()
        assert client.goodbye
    else:
        assert client.until_gone() == h2.errors.ErrorCodes.NO_ERROR
    assert took(start) < 2.5


def test_a_connection_that_never_asks_is_closed(world, upstream, connect):
    client = connect(world.edge(upstream.url, limits={"idle_s": 0.3}))
    assert client.closed()


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_an_upload_that_stalls_is_refused(world, upstream, request, kind):
    running = world.edge(upstream.url, limits={"stall_s": 0.3, "idle_s": 30})
    client = request.getfixturevalue(kind)(running)
    start = time.monotonic()
    if kind == "connect":
        client.send(f"POST / {HEAD}content-length: 10\r\n\r\nabc")
        found = client.answer()
    else:
        stream = client.start("/", "POST", end=False)
        client.data(stream, b"abc")
        found = client.answer(stream)
    assert (found.status, found.reason) == (408, "request_timeout")
    assert took(start) < 2.5
    running.until(lambda: not upstream._open)
    assert not upstream.seen[0].ended


def test_an_upload_that_waits_for_its_upstream_is_not_stalled(world, serve, connect):
    async def slowly(talk: Talk, seen: Seen) -> None:
        await asyncio.sleep(1.2)
        await upstream.body(talk, seen)
        await talk.ok()

    upstream = serve(Http1Upstream(slowly, whole=False))
    client = connect(world.edge(upstream.url, limits={"stall_s": 0.4}))
    assert client.ask("/", "POST", body=b"x" * (16 << 20)).status == 200
    assert len(upstream.seen[0].body) == 16 << 20


# ---- slow readers ----


def test_a_client_that_stops_reading_is_cut_and_holds_little(world, serve, connect):
    upstream = serve(Http1Upstream(pour))
    running = world.edge(upstream.url, limits={"stall_s": 0.5, "idle_s": 30})
    client = connect(running, receive_buffer=4096)
    client.send(f"GET / {HEAD}\r\n")
    running.until(lambda: any(connection.paused_since for connection in running.edge.connections))
    [connection] = running.edge.connections
    assert connection.transport.get_write_buffer_size() < 2 << 20
    running.until(lambda: running.counts.open == 0)
    running.until(lambda: not upstream._open)


def test_a_stream_whose_window_stays_shut_is_cut_and_holds_little(world, serve, connect2):
    upstream = serve(Http1Upstream(pour))
    running = world.edge(upstream.url, limits={"stall_s": 0.5, "idle_s": 30})
    client = connect2(running, window=1000)
    stream = client.start()
    running.until(lambda: upstream._open)
    [connection] = running.edge.connections
    running.until(lambda: waiting(connection))
    assert waiting(connection) < 2 << 20
    found = client.answer(stream)
    assert found.reset
    running.until(lambda: not upstream._open)
    client.window = None
    assert not client.gone


def test_a_whole_answer_that_nobody_takes_is_let_go(world, serve, connect2):
    async def some(talk: Talk, seen: Seen) -> None:
        await talk.ok(b"x" * 50_000)

    running = world.edge(serve(Http1Upstream(some)).url, limits={"stall_s": 0.4, "idle_s": 30})
    client = connect2(running, window=1000)
    client.start()
    [connection] = running.edge.connections
    running.until(lambda: waiting(connection))
    running.until(lambda: not waiting(connection), 3)


def test_a_slow_reader_that_goes_on_reading_gets_everything(world, serve, connect):
    async def some(talk: Talk, seen: Seen) -> None:
        await talk.ok(b"x" * (4 << 20))

    running = world.edge(serve(Http1Upstream(some)).url, limits={"stall_s": 1})
    client = connect(running, receive_buffer=16_384)
    client.send(f"GET / {HEAD}connection: close\r\n\r\n")
    head = client.head()
    left = int(head.get("content-length") or 0)
    while left:
        piece = client.exactly(min(left, 512 << 10))
        left -= len(piece)
        time.sleep(0.2)
    assert client.closed()


def test_a_client_that_pings_and_never_reads_fills_no_memory(world, upstream, connect2):
    running = world.edge(upstream.url, limits={"stall_s": 0.5})
    client = connect2(running, receive_buffer=4096)
    ping = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"
    [connection] = running.edge.connections
    most = 0
    with pytest.raises(OSError):  # noqa: PT011  (it is cut)
        for _ in range(10_000):
            client.sock.sendall(ping * 1000)
            most = max(most, connection.transport.get_write_buffer_size())
    assert most < 4 << 20
    running.until(lambda: running.counts.open == 0)


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_a_body_that_waits_for_its_verdict_fills_no_memory(world, upstream, request, kind):
    ports = Ports()
    ports.delay_s = 0.8
    running = world.edge(upstream.url, ports=ports)
    client = request.getfixturevalue(kind)(running)
    client.sock.settimeout(0.3)
    body = b"x" * (1 << 16)
    stream = 0
    if kind == "connect":
        client.send(f"POST / {HEAD}content-length: {MANY}\r\n\r\n")
    else:
        stream = client.start("/", "POST", end=False)
        client.conn.outbound_flow_control_window = 1 << 30
        client.conn.streams[stream]._outbound_flow_control_window = None
    sent = 0
    frame = struct.pack(">I", 16_384)[1:] + b"\0\0" + struct.pack(">I", stream) + b"x" * 16_384
    with pytest.raises(
        (TimeoutError, BrokenPipeError, ConnectionResetError)
    ):  # no window is left, or it is not kept to
        while sent < MANY:
            client.sock.sendall(body if kind == "connect" else frame * 4)
            sent += 1 << 16
    assert sent < MANY // 2
    assert upstream.received == b""


# ---- bodies ----


def test_a_length_over_the_limit_is_refused_before_the_upstream_hears_of_it(world, upstream, connect, connect2):
    running = world.edge(upstream.url, route={"body_limit_bytes": 100})
    client = connect(running)
    client.send(f"POST / {HEAD}content-length: 101\r\n\r\n")
    found = client.answer()
    assert (found.status, found.reason) == (413, "body_too_large")
    assert connect2(running).ask("/", "POST", [("content-length", "101")], b"x" * 101).status == 413
    assert upstream.received == b""
    assert connect(running).ask("/", "POST", body=b"x" * 100).status == 200


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_a_body_that_grows_over_the_limit_is_cut(world, upstream, request, kind):
    running = world.edge(upstream.url, route={"body_limit_bytes": 100_000})
    client = request.getfixturevalue(kind)(running)
    if kind == "connect":
        client.send(f"POST / {HEAD}transfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(200):
                client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        found = client.answer()
    else:
        found = client.ask("/", "POST", body=b"x" * 200_000)
    assert (found.status, found.reason) == (413, "body_too_large")
    running.until(lambda: not upstream._open)
    assert not upstream.seen[0].ended
    assert len(upstream.received) < 120_000


def test_a_body_for_the_gateway_itself_is_small(edge, connect):
    found = connect(edge).ask("/.gateway/enrol", "POST", body=b"x" * 70_000)
    assert found.status == 413


# ---- how many ----


def test_a_client_may_have_so_many_connections(world, upstream, connect):
    running = world.edge(upstream.url, limits={"connections_per_client": 3})
    held = [connect(running) for _ in range(3)]
    with pytest.raises((OSError, ssl.SSLError)):
        dial(running.port, world.certificates, alpn=["http/1.1"])
    assert running.counts.handshakes[-1] == "too_many"
    assert [client.ask().status for client in held] == [200, 200, 200]
    held[0].close()
    running.until(lambda: running.counts.open == 2)
    assert connect(running).ask().status == 200


def test_a_worker_has_so_many_connections(world, upstream, connect):
    running = world.edge(upstream.url, limits={"connections": 2})
    held = [connect(running) for _ in range(2)]
    with pytest.raises((OSError, ssl.SSLError)):
        dial(running.port, world.certificates, alpn=["http/1.1"])
    assert held[0].ask().status == 200


def test_more_streams_than_allowed_end_the_connection(world, serve, connect2):
    async def never(talk: Talk, seen: Seen) -> None:
        await talk.reader.read()

    upstream = serve(Http1Upstream(never))
    running = world.edge(upstream.url, limits={"streams": 5})
    client = connect2(running)
    client.read()
    for _ in range(5):
        client.start()
    running.until(lambda: upstream.connections == 5)
    client.conn.remote_settings.max_concurrent_streams = 100
    client.conn.remote_settings.acknowledge()
    client.start()
    assert client.until_gone()
    running.until(lambda: not upstream._open)
    assert upstream.connections == 5


def test_a_rapid_reset_ends_the_connection(world, serve, connect2):
    async def never(talk: H2Talk, stream: int, seen: Seen) -> None:
        await asyncio.sleep(60)

    upstream = serve(Http2Upstream(never))
    running = world.edge(upstream.url, upstream={"protocol": "h2"}, limits={"streams": 10})
    client = connect2(running)
    with contextlib.suppress(OSError):
        for _ in range(2000):
            stream = client.start()
            client.conn.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            client.flush()
    client.until_gone()
    assert len(upstream.seen) < 300
    running.until(lambda: running.counts.open == 0)


def test_pipelining_without_end_is_cut(world, serve, connect):
    async def never(talk: Talk, seen: Seen) -> None:
        await talk.reader.read()

    upstream = serve(Http1Upstream(never))
    running = world.edge(upstream.url)
    client = connect(running)
    with pytest.raises(OSError):  # noqa: PT011  (a reset or a broken pipe)
        for _ in range(1000):
            client.send(f"GET / {HEAD}\r\n" * 1000)
    running.until(lambda: not upstream._open)
    assert len(upstream.seen) <= 1


def test_a_drained_worker_lets_go(edge, upstream, connect, connect2, world):
    one, two = connect(edge), connect2(edge)
    assert one.ask().status == two.ask().status == 200
    world.run(edge.edge.drain())
    assert one.closed()
    assert one.goodbye
    assert two.until_gone() == h2.errors.ErrorCodes.NO_ERROR
