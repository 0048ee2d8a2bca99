"""WebSocket through the edge, with the websockets library on both sides."""

from __future__ import annotations

import asyncio

import pytest
import websockets.asyncio.server
import websockets.exceptions
from websockets.asyncio.client import ClientConnection, connect

from gateway.core.decision import Decision
from tests.support.edge_clients import tls_context
from tests.support.edge_upstreams import Http1Upstream, Seen, Talk
from tests.support.edge_world import HOST, Ports, World

HANDSHAKE = (
    f"GET /ws HTTP/1.1\r\nhost: {HOST}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Echo:
    """Says back what it hears; what it hears last is kept."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.closed: tuple[int | None, str | None] | None = None
        self.pieces: list[list[str | bytes]] = []

    async def start(self) -> None:
        self.server = await websockets.asyncio.server.serve(
            self.talk,
            "127.0.0.1",
            0,
            max_size=1 << 26,
            select_subprotocol=lambda _, offered: offered[0] if offered else None,
            ping_interval=None,
        )
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def talk(self, socket: websockets.asyncio.server.ServerConnection) -> None:
        assert socket.request is not None
        self.headers = list(socket.request.headers.raw_items())
        try:
            while True:
                pieces = [piece async for piece in socket.recv_streaming()]
                self.pieces.append(pieces)
                joined = "".join(pieces) if isinstance(pieces[0], str) else b"".join(pieces)
                if joined == "close":
                    await socket.close(4001, "as you wish")
                elif joined == "drop":
                    socket.transport.abort()
                elif joined == "ping":
                    await (await socket.ping(b"from upstream"))
                    await socket.send("ponged")
                else:
                    await socket.send(joined)
        except websockets.exceptions.ConnectionClosed:
            self.closed = (socket.close_code, socket.close_reason)


@pytest.fixture
def echo(serve):
    return serve(Echo())


@pytest.fixture
def running(world, echo):
    return world.edge(echo.url)


class Socket:
    """A WebSocket client on the world's loop, in the test's hands."""

    def __init__(self, world: World, client: ClientConnection) -> None:
        self.world, self.client = world, client

    def send(self, message: str | bytes | list[str]) -> None:
        self.world.run(self.client.send(message))

    def recv(self) -> str | bytes:
        return self.world.run(asyncio.wait_for(self.client.recv(), 20))

    def echoed(self, message: str | bytes) -> str | bytes:
        self.send(message)
        return self.recv()

    def ping(self, data: bytes) -> None:
        async def there_and_back() -> None:
            await (await self.client.ping(data))

        self.world.run(there_and_back(), 5)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.world.run(self.client.close(code, reason))

    def raw(self, data: bytes) -> None:
        self.world.loop.call_soon_threadsafe(self.client.transport.write, data)

    def drop(self) -> None:
        self.world.loop.call_soon_threadsafe(self.client.transport.abort)


@pytest.fixture
def open_socket(world):
    opened: list[Socket] = []

    def open_it(running, **how) -> Socket:
        async def dial() -> ClientConnection:
            how.setdefault("compression", None)
            return await connect(
                f"wss://{HOST}/ws?a=b",
                host="127.0.0.1",
                port=running.port,
                ssl=tls_context(world.certificates, ["http/1.1"]),
                max_size=1 << 26,
                open_timeout=5,
                close_timeout=2,
                ping_interval=None,
                proxy=None,
                **how,
            )

        opened.append(Socket(world, world.run(dial())))
        return opened[-1]

    yield open_it
    for socket in opened:
        socket.close()


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_text_and_binary_come_back(running, open_socket, compression):
    socket = open_socket(running, compression=compression)
    for message in ("hello", "", "gr\u00fc\u00df \U0001f600", b"\x00\xff", b"", "x" * 70_000):
        assert socket.echoed(message) == message


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_large_message_comes_back(running, open_socket, compression):
    socket = open_socket(running, compression=compression)
    message = bytes(range(256)) * 32_768
    assert socket.echoed(message) == message


@pytest.mark.parametrize("pieces", [1, 100])
def test_a_message_without_measure_is_cut_before_it_fills_memory(running, open_socket, echo, pieces):
    socket = open_socket(running)
    message = "x" * (20 << 20)
    size = len(message) // pieces
    with pytest.raises(websockets.exceptions.ConnectionClosed) as ended:
        socket.send([message[at : at + size] for at in range(0, len(message), size)])
        socket.recv()
    assert ended.value.rcvd is None or ended.value.rcvd.code == 1009
    running.until(lambda: echo.closed)
    assert echo.closed == (1009, "message too big")
    assert echo.pieces == []


def test_no_extension_is_agreed_to(running, open_socket, echo):
    socket = open_socket(running, compression="deflate")
    assert socket.echoed("x") == "x"
    assert "sec-websocket-extensions" not in {name.lower() for name, _ in echo.headers}


def test_an_upstream_that_agrees_to_what_was_not_offered_is_broken(world, serve, connect):
    async def deflate(talk: Talk, seen: Seen) -> None:
        await talk.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            "sec-websocket-extensions: permessage-deflate\r\n\r\n"
        )

    client = connect(world.edge(serve(Http1Upstream(deflate)).url))
    client.send(HANDSHAKE)
    found = client.answer()
    assert (found.status, found.reason) == (502, "upstream_broken")


def test_fragments_are_kept(running, open_socket, echo):
    socket = open_socket(running)
    socket.send(["one", "two", "three"])
    assert socket.recv() == "onetwothree"
    assert "".join(echo.pieces[0]) == "onetwothree"
    assert len(echo.pieces[0]) >= 3


def test_pings_go_through_in_both_directions(running, open_socket):
    socket = open_socket(running)
    socket.ping(b"from client")
    socket.send("ping")
    assert socket.recv() == "ponged"


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4242, "own reason")])
def test_the_clients_close_code_reaches_the_upstream(running, open_socket, echo, code, reason):
    socket = open_socket(running)
    assert socket.echoed("x") == "x"
    socket.close(code, reason)
    running.until(lambda: echo.closed)
    assert echo.closed == (code, reason)
    running.until(lambda: running.counts.open == 0)


def test_the_upstreams_close_code_reaches_the_client(running, open_socket):
    socket = open_socket(running)
    socket.send("close")
    with pytest.raises(websockets.exceptions.ConnectionClosed) as ended:
        socket.recv()
    assert ended.value.rcvd is not None
    assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (4001, "as you wish")


def test_an_upstream_that_breaks_off_ends_the_client(running, open_socket):
    socket = open_socket(running)
    socket.send("drop")
    with pytest.raises(websockets.exceptions.ConnectionClosed):
        socket.recv()


def test_a_client_that_breaks_off_ends_the_upstream(running, open_socket, echo):
    socket = open_socket(running)
    assert socket.echoed("x") == "x"
    socket.drop()
    running.until(lambda: echo.closed)


def test_the_handshake_is_judged_like_every_request(world, echo, open_socket):
    ports = Ports()
    ports.decision = Decision("deny", ("role_missing",))
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        open_socket(world.edge(echo.url, ports=ports))
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["x-gateway-reason"] == "role_missing"
    assert echo.headers == []


def test_the_upstream_gets_our_headers_and_the_subprotocol(running, open_socket, echo):
    socket = open_socket(running, subprotocols=["chat"], additional_headers={"X-Gateway-Subject": "evil"})
    assert socket.client.subprotocol == "chat"
    names = [name.lower() for name, _ in echo.headers]
    assert "x-gateway-decision" in names
    assert "x-gateway-subject" not in names


def test_an_upstream_that_does_not_switch_answers_like_any_other(world, serve, connect):
    async def decline(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno")

    client = connect(world.edge(serve(Http1Upstream(decline)).url))
    client.send(HANDSHAKE)
    found = client.answer()
    assert (found.status, found.body) == (426, b"no")
    assert client.ask().status == 426


def test_an_upstream_that_switches_unasked_is_broken(world, serve, connect):
    async def switch(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nraw")

    found = connect(world.edge(serve(Http1Upstream(switch)).url)).ask()
    assert (found.status, found.reason) == (502, "upstream_broken")


@pytest.mark.parametrize(
    "change",
    [
        ("GET", "POST"),
        ("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        # a body would reach the upstream as frames that nobody looked at
        ("sec-websocket-version: 13\r\n", "sec-websocket-version: 13\r\ncontent-length: 5\r\n"),
        ("sec-websocket-version: 13\r\n", "sec-websocket-version: 13\r\ntransfer-encoding: chunked\r\n"),
        ("sec-websocket-version: 13\r\n", ""),
        ("sec-websocket-version: 13\r\n", "sec-websocket-version: 13\r\nsec-websocket-version: 8\r\n"),
    ],
)
def test_a_broken_handshake_is_refused(edge, upstream, connect, change):
    client = connect(edge)
    client.send(HANDSHAKE.replace(*change))
    assert client.answer().status == 400
    assert upstream.received == b""


def test_bytes_that_are_no_frames_end_the_connection(running, open_socket, echo):
    socket = open_socket(running)
    assert socket.echoed("x") == "x"
    socket.raw(b"GET / HTTP/1.1\r\nhost: a.localhost\r\n\r\n")
    running.until(lambda: echo.closed)
    running.until(lambda: running.counts.open == 0)


def test_a_quiet_connection_stays_open(world, echo, open_socket):
    running = world.edge(echo.url, limits={"idle_s": 0.2, "stall_s": 0.2}, upstream={"response_timeout_s": 0.2})
    socket = open_socket(running)
    world.run(asyncio.sleep(1.3))
    socket.send("still there?")
    assert socket.recv() == "still there?"


def test_messages_cross_each_other(world, running, open_socket):
    socket = open_socket(running)

    async def both() -> list[str | bytes]:
        async def talk() -> None:
            for number in range(50):
                await socket.client.send(f"{number}")

        talking = asyncio.ensure_future(talk())
        heard = [await socket.client.recv() for _ in range(50)]
        await talking
        return heard

    assert world.run(both()) == [f"{number}" for number in range(50)]
