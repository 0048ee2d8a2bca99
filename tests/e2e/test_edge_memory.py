"""Memory stays flat whatever a body's size: large bodies in both directions, through an edge in its own process."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from tests.support.edge_clients import Http1, Http2
from tests.support.edge_process import EdgeProcess
from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import HOST

SIZE = 1 << 30 if os.environ.get("GATEWAY_BIG") else 1 << 28
PIECE = bytes(1 << 18)
GROWTH_MIB = 40


async def one(talk: Talk, seen: Seen) -> None:
    """Takes as much as is announced, gives as much as the path says."""
    size = int(seen.target.strip("/"))
    if seen.method == "GET":
        await talk.send(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n")
        for _ in range(size // len(PIECE)):
            await talk.send(PIECE)
        return
    while size:
        size -= len(await talk.reader.read(min(size, 1 << 18)))
    await talk.ok(b"all of it")


async def two(talk: H2Talk, stream: int, seen: Seen) -> None:
    size = int(seen.target.strip("/"))
    await talk.ended(stream)
    await talk.head(stream)
    if seen.method == "GET":
        for _ in range(size // len(PIECE)):
            await talk.data(stream, PIECE)
        await talk.data(stream, b"", end=True)
    else:
        await talk.data(stream, b"all of it" if seen.size == size else b"less", end=True)


def upload_1(process: EdgeProcess, size: int) -> None:
    with closing(Http1(process.port, process.certificates)) as client:
        client.send(f"POST /{size} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {size}\r\n\r\n")
        for _ in range(size // len(PIECE)):
            client.send(PIECE)
        assert client.answer().body == b"all of it"


def download_1(process: EdgeProcess, size: int) -> None:
    with closing(Http1(process.port, process.certificates)) as client:
        client.send(f"GET /{size} HTTP/1.1\r\nhost: {HOST}\r\n\r\n")
        client.head()
        left = size - len(client.buffer)
        while left > 0:
            left -= len(client.sock.recv(1 << 18))


def upload_2(process: EdgeProcess, size: int) -> None:
    with closing(Http2(process.port, process.certificates)) as client:
        stream = client.start(f"/{size}", "POST", [("content-length", str(size))], end=False)
        for _ in range(size // len(PIECE)):
            client.data(stream, PIECE)
        client.data(stream, b"", end=True)
        assert client.answer(stream).body == b"all of it"


def download_2(process: EdgeProcess, size: int) -> None:
    with closing(Http2(process.port, process.certificates)) as client:
        client.keep = False
        assert client.ask(f"/{size}").complete
        assert client.taken == size


@pytest.fixture(scope="module", params=["http1", "h2"])
def process(request, whole_world):
    """An edge in its own process, in front of an upstream that takes and gives without end."""
    upstream = Http1Upstream(one, whole=False) if request.param == "http1" else Http2Upstream(two, keep=False)
    whole_world.run(upstream.start())
    made = EdgeProcess(whole_world.certificates, whole_world.folder, upstream.url, request.param)
    yield made
    made.stop()
    whole_world.run(upstream.stop())
    assert made.process.returncode == 0


@pytest.mark.parametrize("move", [upload_1, download_1, upload_2, download_2], ids=lambda move: move.__name__)
def test_a_large_body_passes_and_leaves_memory_flat(process, move):
    move(process, 8 << 20)
    before = process.rss_mib()
    process.forget_most()
    move(process, SIZE)
    assert process.most_mib() - before < GROWTH_MIB
