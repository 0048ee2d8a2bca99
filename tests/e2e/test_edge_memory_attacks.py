"""Memory has an owner: clients that make a worker hold bytes get no further than their limit; a bystander is served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from tests.support import edge_floods as flood
from tests.support.edge_clients import dial
from tests.support.edge_floods import Bystander, frame
from tests.support.edge_process import EdgeProcess
from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import HOST

GROWTH_MIB = 256
ATTACK_S = 6.0
CONNECTIONS = 60
HEAD = f"HTTP/1.1\r\nhost: {HOST}\r\n".encode()
END = flood.END_STREAM | flood.END_HEADERS
STREAMS = range(1, 201, 2)
BIG = bytes(1 << 18)


async def serve(talk: Talk, seen: Seen) -> None:
    """Gives a large answer, never answers, or speaks WebSocket, by the path."""
    if seen.target == "/big":
        await talk.send(f"HTTP/1.1 200 OK\r\ncontent-length: {1 << 30}\r\n\r\n")
        for _ in range(1 << 12):
            await talk.send(BIG)
    elif seen.target == "/never":
        await asyncio.sleep(ATTACK_S + 2)
    elif seen.target == "/ws":
        await talk.send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
                        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")  # fmt: skip
        while await talk.reader.read(1 << 18):
            pass
    else:
        await talk.ok()


class Service(Http1Upstream):
    """Keeps a connection for the next request."""

    async def talk(self, talk: Talk) -> None:
        while not talk.reader.at_eof():
            await super().talk(talk)


async def serve_two(talk: H2Talk, stream: int, seen: Seen) -> None:
    """Answers the bystander, nobody else."""
    if seen.target != "/bystander":
        await asyncio.sleep(ATTACK_S + 2)
    await talk.head(stream)
    await talk.data(stream, b"ok", end=True)


@contextlib.contextmanager
def in_front_of(whole_world, upstream: Http1Upstream | Http2Upstream, protocol: str) -> Iterator[EdgeProcess]:
    whole_world.run(upstream.start())
    running = EdgeProcess(whole_world.certificates, whole_world.folder, upstream.url, protocol)
    try:
        yield running
    finally:
        running.stop()
        whole_world.run(upstream.stop())
    assert running.process.returncode == 0


@pytest.fixture(scope="module")
def process(whole_world):
    with in_front_of(whole_world, Service(serve, whole=False), "http1") as running:
        yield running


@pytest.fixture(scope="module")
def two(whole_world):
    with in_front_of(whole_world, Http2Upstream(serve_two, keep=False), "h2") as running:
        yield running


class Attack:
    """Many connections that send `data` and read nothing, from one thread and `clients` addresses."""

    def __init__(self, process: EdgeProcess, alpn: str, data: bytes, *, clients: int, count: int = CONNECTIONS) -> None:
        self._process, self._alpn, self._data = process, alpn, data
        self._sources = [f"127.0.1.{1 + number % clients}" for number in range(count)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            left: dict[Any, memoryview] = {}
            for source in self._sources:
                with contextlib.suppress(OSError):
                    sock = dial(self._process.port, self._process.certificates, alpn=[self._alpn], source=source)
                    stack.callback(sock.close)
                    sock.setblocking(False)
                    left[sock] = memoryview(self._data)
            poller = stack.enter_context(selectors.DefaultSelector())
            for sock in left:
                poller.register(sock, selectors.EVENT_WRITE)
            while not self._stop.wait(0.001 if left else 0.1):
                for key, _ in poller.select(0.1):
                    sock = key.fileobj
                    with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                        try:
                            left[sock] = left[sock][sock.send(left[sock][: 1 << 14]) :]
                        except OSError as error:
                            if isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
                                raise
                            left[sock] = left[sock][:0]
                    if not left[sock]:
                        poller.unregister(sock)


def large_fields(count: int = 7) -> bytes:
    """Header fields of 4 KiB each, for an HPACK decoder in any state."""
    return b"".join(b"\x00\x02x%d" % number + b"\x7f\x81\x1f" + b"a" * 4096 for number in range(count))


def requests(path: str, block: Callable[[str], bytes] = lambda path: flood.request_block("GET", path)) -> bytes:
    return b"".join(frame(flood.HEADERS, block(path), flags=END, stream=stream) for stream in STREAMS)


def uploads(path: str, size: int) -> bytes:
    block = flood.request_block("POST", path)
    heads = [frame(flood.HEADERS, block, flags=flood.END_HEADERS, stream=stream) for stream in STREAMS]
    piece = bytes(1 << 14)
    bodies = [frame(flood.DATA, piece, stream=stream) * (size >> 14) for stream in STREAMS]
    return b"".join((*heads, *bodies))


SHUT = frame(flood.SETTINGS, b"\x00\x04\x00\x00\x00\x00")
OPEN = frame(flood.SETTINGS, b"\x00\x04\x7f\xff\xff\xff") + frame(flood.WINDOW_UPDATE, b"\x7f\xff\x00\x00")
TINY_DATA = frame(flood.DATA, b"x", stream=1) * 100_000
LONG = (15 << 20).to_bytes(8) + bytes(4 + (14 << 20))
H1_ATTACKS = {
    "own_answers_not_read": (b"GET /.gateway/health " + HEAD + b"\r\n") * 30_000,
    "refusals_not_read": (b"GET /%2e%2e " + HEAD + b"\r\n") * 30_000,
    "answers_not_read": b"GET /big " + HEAD + b"\r\n",
    "heads_without_end": b"GET / " + HEAD + b"x: " + b"a" * 30_000,
    "pipelined_behind_one_that_waits": b"GET /never " + HEAD + b"\r\n" + (b"GET / " + HEAD + b"\r\n") * 25_000,
    "websocket_messages_without_end": flood.WEBSOCKET_HEAD + b"\x02\xff" + LONG,
}  # fmt: skip
H2_ATTACKS = {
    "windows_shut": SHUT + requests("/big"),
    "windows_open_not_read": OPEN + requests("/big"),
    "refusals_with_windows_shut": SHUT + requests("/%2e%2e"),
    "large_heads_that_wait": requests("/never", lambda path: flood.request_block("GET", path) + large_fields(3)),
    "header_blocks_without_end": frame(flood.HEADERS, flood.request_block() + large_fields(3), stream=1),
    "bodies_for_an_own_path": uploads("/.gateway/health", 60 << 10),
    "uploads_that_wait": uploads("/never", 1 << 18),
    "tiny_data_that_waits": frame(flood.HEADERS, flood.request_block("POST", "/never"), flags=4, stream=1) + TINY_DATA,
}


def attacked(process: EdgeProcess, alpn: str, data: bytes, clients: int) -> None:
    idle = process.rss_mib()
    process.forget_most()
    with Bystander(process) as bystander, Attack(process, alpn, data, clients=clients):
        time.sleep(ATTACK_S)
    growth = process.most_mib() - idle
    if os.environ.get("GATEWAY_FIGURES"):
        print(f"{growth:.0f} MiB, p99 {1000 * bystander.percentile_s(0.99):.0f} ms")  # noqa: T201
    assert bystander.failure == ""
    assert bystander.statuses == {200}
    assert growth < GROWTH_MIB


@pytest.mark.parametrize("clients", [1, 20])
@pytest.mark.parametrize("kind", H1_ATTACKS)
def test_http1_clients_cannot_make_a_worker_hold_much(process, kind, clients):
    attacked(process, "http/1.1", H1_ATTACKS[kind], clients)


@pytest.mark.parametrize("clients", [1, 20])
@pytest.mark.parametrize("kind", H2_ATTACKS)
def test_http2_clients_cannot_make_a_worker_hold_much(process, kind, clients):
    attacked(process, "h2", flood.preface() + H2_ATTACKS[kind], clients)


@pytest.mark.parametrize("clients", [1, 20])
def test_bodies_that_wait_for_a_place_at_an_http2_upstream_are_bounded(two, clients):
    attacked(two, "h2", flood.preface() + uploads("/never", 1 << 18), clients)
