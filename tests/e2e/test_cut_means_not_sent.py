"""Cut means not sent: a request that ends while it waits for its upstream does not reach it, not even later."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.decision import Decision
from gateway.pipeline.reevaluation import ContinuousEvaluation
from tests.support.edge_clients import Http1, Http2
from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import HOST, Running, World

SECRET = b"the-body-that-must-not-arrive"
LENGTH = len(SECRET)
PATH = "/the-path-that-must-not-arrive"


class Gate:
    """A TCP relay in front of an upstream that lets nothing through until it is opened: a dial that takes its time."""

    def __init__(self, port: int) -> None:
        self.upstream_port = port
        self.arrived = 0
        self.passed = 0
        self.opened = asyncio.Event()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.opened.set()
        self.server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrived += 1
        await self.opened.wait()
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        self.passed += 1

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pipe(reader, to_writer), pipe(to_reader, writer))


def server_tls(world: World, alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(world.certificates.upstream.cert_file, world.certificates.upstream.key_file)
    context.set_alpn_protocols([alpn])
    return context


@pytest.fixture(params=["http1", "h2"])
def slow_dial(world: World, serve: Callable[..., Any], request: pytest.FixtureRequest) -> tuple[Running, Gate, Any]:
    """An edge whose upstream takes a connection, and begins TLS when its gate is opened."""
    kind, alpn = (Http1Upstream, "http/1.1") if request.param == "http1" else (Http2Upstream, "h2")
    upstream = serve(kind(tls=server_tls(world, alpn)))
    gate = serve(Gate(upstream.port))
    secured = {"ca": world.certificates.upstream_ca.cert_file, "server_name": "up.localhost"}
    running = world.edge(
        f"https://127.0.0.1:{gate.port}",
        upstream=secured | {"protocol": request.param, "connect_timeout_s": 20},
        limits={"stall_s": 1.0},
    )
    return running, gate, upstream


def revoke(running: Running) -> None:
    """Policy lets nobody in any more, and everything that is open is judged again."""
    running.ports.decision = Decision("deny", ("policy_denied",))
    running.world.run(ContinuousEvaluation(running.edge, None).reevaluate_all())  # type: ignore[arg-type]


def begin(client: Http1 | Http2, method: str, *, whole: bool = True) -> int:
    """Send a request; of a POST that is not `whole` the last byte is missing."""
    if isinstance(client, Http2):
        if method == "GET":
            return client.start(PATH)
        stream = client.start(PATH, method, headers=[("content-length", str(LENGTH))], end=False)
        client.data(stream, SECRET if whole else SECRET[:-1], end=whole)
        return stream
    length = f"content-length: {LENGTH}\r\n" if method == "POST" else ""
    body = b"" if method == "GET" else SECRET if whole else SECRET[:-1]
    client.send(f"{method} {PATH} HTTP/1.1\r\nhost: {HOST}\r\n{length}\r\n".encode() + body)
    return 0


def answer_of(client: Http1 | Http2, stream: int) -> Any:
    return client.answer(stream) if isinstance(client, Http2) else client.answer()


def cancel(client: Http1 | Http2, stream: int) -> None:
    if isinstance(client, Http2):
        client.conn.reset_stream(stream, 8)
        client.flush()
    else:
        client.cut()


def nothing_arrived(upstream: Any) -> None:
    time.sleep(0.3)
    assert not [seen for seen in upstream.seen if seen.target == PATH]
    assert SECRET[:8] not in upstream.received


def finish(running: Running, gate: Gate) -> None:
    running.world.loop.call_soon_threadsafe(gate.opened.set)
    running.until(lambda: gate.passed == gate.arrived)


@pytest.fixture(params=["connect", "connect2"])
def client_of(request: pytest.FixtureRequest) -> Callable[..., Http1 | Http2]:
    opened: Callable[..., Http1 | Http2] = request.getfixturevalue(request.param)
    return opened


# ---- while the upstream is dialled ----


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_is_revoked_while_its_upstream_is_dialled(slow_dial, client_of, method):
    running, gate, upstream = slow_dial
    client = client_of(running)
    stream = begin(client, method)
    running.until(lambda: gate.arrived)
    revoke(running)
    found = answer_of(client, stream)
    assert (found.status, found.reason) == (403, "policy_denied")
    finish(running, gate)
    nothing_arrived(upstream)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_its_client_cancels_while_its_upstream_is_dialled(slow_dial, client_of, method):
    running, gate, upstream = slow_dial
    client = client_of(running)
    stream = begin(client, method)
    running.until(lambda: gate.arrived)
    cancel(client, stream)
    running.until(lambda: not any(connection.exchanges for connection in running.edge.connections))
    finish(running, gate)
    nothing_arrived(upstream)


def test_a_request_that_times_out_while_its_upstream_is_dialled(slow_dial, client_of):
    running, gate, upstream = slow_dial
    client = client_of(running)
    stream = begin(client, "POST", whole=False)
    running.until(lambda: gate.arrived)
    found = answer_of(client, stream)
    assert (found.status, found.reason) == (408, "request_timeout")
    finish(running, gate)
    nothing_arrived(upstream)


def test_the_others_that_wait_for_the_same_dial_are_served(slow_dial, connect2):
    running, gate, upstream = slow_dial
    client = connect2(running)
    streams = [client.start("/kept"), client.start(PATH), client.start("/kept")]
    running.until(lambda: gate.arrived)
    running.until(lambda: sum(len(connection.exchanges) for connection in running.edge.connections) == 3)
    cancel(client, streams[1])
    running.until(lambda: sum(len(connection.exchanges) for connection in running.edge.connections) == 2)
    finish(running, gate)
    assert [client.answer(stream).status for stream in (streams[0], streams[2])] == [200, 200]
    nothing_arrived(upstream)
    # What was dialled for the one that was cut serves the next.
    assert client.ask("/kept").status == 200
    assert upstream.connections == gate.arrived


# ---- while a request waits for a place on an HTTP/2 connection ----


@pytest.fixture
def one_place(world: World, serve: Callable[..., Any]) -> tuple[Running, Any, Callable[[], None]]:
    """An edge whose HTTP/2 upstream takes one request at a time, and what lets the first one end."""
    ended = asyncio.Event()

    async def hold(side: H2Talk, stream: int, seen: Seen) -> None:
        if seen.target == "/first":
            await ended.wait()
        await side.ended(stream)
        await side.head(stream, end=True)

    upstream = serve(Http2Upstream(hold, places=1))
    running = world.edge(upstream.url, upstream={"protocol": "h2", "response_timeout_s": 1.0}, limits={"stall_s": 1.0})
    return running, upstream, lambda: world.loop.call_soon_threadsafe(ended.set)


def fill(running: Running, upstream: Any, client: Http2) -> int:
    """Take the one place."""
    first = client.start("/first", "POST", end=False)
    running.until(lambda: upstream.seen)
    time.sleep(0.1)  # its settings are known by then
    return first


def waiting(running: Running) -> None:
    running.until(lambda: sum(len(connection.exchanges) for connection in running.edge.connections) == 2)
    time.sleep(0.05)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["revoked", "cancelled"])
def test_a_request_that_is_cut_while_it_waits_for_a_place(one_place, connect2, method, how):
    running, upstream, end = one_place
    client = connect2(running)
    first = fill(running, upstream, client)
    stream = begin(client, method)
    waiting(running)
    if how == "cancelled":
        cancel(client, stream)
        running.until(lambda: sum(len(connection.exchanges) for connection in running.edge.connections) == 1)
    else:
        [connection] = running.edge.connections
        exchange = connection.exchanges[stream]
        running.ports.decision = Decision("deny", ("policy_denied",))
        running.world.run(ContinuousEvaluation(running.edge, None).reevaluate([exchange]))
        found = client.answer(stream)
        assert (found.status, found.reason) == (403, "policy_denied")
        running.ports.decision = Decision("allow", ("policy_ok",))
    end()
    client.data(first, b"x", end=True)
    assert client.answer(first).status == 200
    nothing_arrived(upstream)
    assert client.ask("/next").status == 200


def test_a_request_that_times_out_while_it_waits_for_a_place(one_place, connect2):
    running, upstream, end = one_place
    client = connect2(running)
    first = fill(running, upstream, client)
    stream = begin(client, "GET")
    for _ in range(40):
        client.data(first, b"x")
        time.sleep(0.05)
    found = client.answer(stream)
    assert (found.status, found.reason) == (504, "upstream_timeout")
    end()
    client.data(first, b"x", end=True)
    assert client.answer(first).status == 200
    nothing_arrived(upstream)


# ---- while what was written waits for the upstream to read it ----


def test_what_waits_for_the_upstream_to_read_is_thrown_away(world, serve, connect):
    async def slow(talk: Talk, seen: Seen) -> None:
        await asyncio.wait_for(go_on.wait(), 10)
        while data := await talk.reader.read(1 << 16):
            seen.size += len(data)

    go_on = asyncio.Event()
    upstream = serve(Http1Upstream(slow, whole=False))
    running = world.edge(upstream.url)
    size = 40 << 20
    client = connect(running)
    client.send(f"POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {size}\r\n\r\n")
    client.sock.settimeout(0.5)
    sent = 0
    try:
        while sent < size:
            sent += client.sock.send(bytes(1 << 16))
    except TimeoutError:
        pass
    client.sock.settimeout(10)
    revoke(running)
    found = client.answer()
    assert (found.status, found.reason) == (403, "policy_denied")
    world.loop.call_soon_threadsafe(go_on.set)
    time.sleep(0.3)
    assert upstream.seen[0].size < sent - (1 << 16)
