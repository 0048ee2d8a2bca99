"""WebSocket through the edge, with the websockets library on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
import websockets.asyncio.server
import websockets.exceptions
from edge_clients import dial
from edge_upstreams import Http1Upstream, Seen, Talk
from edge_world import HOST, Ports
from websockets.sync.client import connect

from gateway.core.decision import Decision

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


@pytest.fixture
def open_socket(world):
    with contextlib.ExitStack() as opened:

        def open_it(running, **how):
            sock = dial(running.port, world.certificates, alpn=["http/1.1"])
            how.setdefault("compression", None)
            client = connect(f"ws://{HOST}/ws?a=b", sock=sock, max_size=1 << 26, open_timeout=5, close_timeout=2, **how)
            return opened.enter_context(client)

        yield open_it


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_text_and_binary_come_back(running, open_socket, compression):
    socket = open_socket(running, compression=compression)
    for message in ("hello", "", "gr\u00fc\u00df \U0001f600", b"\x00\xff", b"", "x" * 70_000):
        socket.send(message)
        assert socket.recv(timeout=5) == message


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_large_message_comes_back(running, open_socket, compression):
    socket = open_socket(running, compression=compression)
    message = bytes(range(256)) * 32_768
    socket.send(message)
    assert socket.recv(timeout=20) == message


def test_fragments_are_kept(running, open_socket, echo):
    socket = open_socket(running)
    socket.send(["one", "two", "three"])
    assert socket.recv(timeout=5) == "onetwothree"
    assert "".join(echo.pieces[0]) == "onetwothree"
    assert len(echo.pieces[0]) >= 3


def test_pings_go_through_in_both_directions(running, open_socket):
    socket = open_socket(running)
    assert socket.ping(b"from client").wait(5)
    socket.send("ping")
    assert socket.recv(timeout=5) == "ponged"


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4242, "own reason")])
def test_the_clients_close_code_reaches_the_upstream(running, open_socket, echo, code, reason):
    socket = open_socket(running)
    socket.send("x")
    socket.recv(timeout=5)
    socket.close(code, reason)
    running.until(lambda: echo.closed)
    assert echo.closed == (code, reason)
    running.until(lambda: running.counts.open == 0)


def test_the_upstreams_close_code_reaches_the_client(running, open_socket):
    socket = open_socket(running)
    socket.send("close")
    with pytest.raises(websockets.exceptions.ConnectionClosed) as ended:
        socket.recv(timeout=5)
    assert ended.value.rcvd is not None
    assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (4001, "as you wish")


def test_an_upstream_that_breaks_off_ends_the_client(running, open_socket):
    socket = open_socket(running)
    socket.send("drop")
    with pytest.raises(websockets.exceptions.ConnectionClosed):
        socket.recv(timeout=5)


def test_a_client_that_breaks_off_ends_the_upstream(running, open_socket, echo):
    socket = open_socket(running)
    socket.send("x")
    socket.recv(timeout=5)
    socket.socket.close()
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
    assert socket.subprotocol == "chat"
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
    socket.send("x")
    socket.recv(timeout=5)
    socket.socket.sendall(b"GET / HTTP/1.1\r\nhost: a.localhost\r\n\r\n")
    running.until(lambda: echo.closed)
    running.until(lambda: running.counts.open == 0)


def test_a_quiet_connection_stays_open(world, echo, open_socket):
    running = world.edge(echo.url, limits={"idle_s": 0.2, "stall_s": 0.2}, upstream={"response_timeout_s": 0.2})
    socket = open_socket(running)
    world.run(asyncio.sleep(1.3))
    socket.send("still there?")
    assert socket.recv(timeout=5) == "still there?"


def test_messages_cross_each_other(running, open_socket):
    socket = open_socket(running)
    got: list[object] = []

    def listen() -> None:
        got.extend(socket.recv(timeout=5) for _ in range(50))

    listener = threading.Thread(target=listen)
    listener.start()
    for number in range(50):
        socket.send(f"{number}")
    listener.join()
    assert got == [f"{number}" for number in range(50)]
