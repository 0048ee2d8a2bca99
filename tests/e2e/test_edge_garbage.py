"""What a client connection leaves behind is gone when it ends, without waiting for the collector.

The collector comes by seldom in a worker, and never soon to what has lived for long: rings between a connection, its
layers and their contexts would pile up for as long as the worker lives.
"""

from __future__ import annotations

import gc
from contextlib import closing

import pytest
from mitmproxy.utils import typecheck

from gateway.edge.mitm.connection import ClientConnection
from gateway.edge.mitm.http_layer import GatewayHttpLayer
from gateway.edge.mitm.stream import Stream
from tests.support.edge_clients import Http1, Http2
from tests.support.edge_upstreams import Http1Upstream, Seen, Talk
from tests.support.edge_world import HOST, Running

COUNT = 5


async def answer(talk: Talk, seen: Seen) -> None:
    if seen.target == "/never":
        await talk.reader.read()
    await talk.ok(b"here you are")


@pytest.fixture
def running(world, serve):
    return world.edge(serve(Http1Upstream(answer)).url)


@pytest.fixture
def no_collector(monkeypatch):
    # Only checked without -O, with exceptions that hold on to their frames; workers run with it.
    monkeypatch.setattr(typecheck, "check_option_type", lambda *_: None)
    gc.collect()
    gc.disable()
    yield there()  # what earlier tests have left, kept alive here so that no address is used twice
    gc.enable()


def h1(running: Running, path: str) -> None:
    with closing(Http1(running.port, running.world.certificates)) as client:
        for _ in range(2):
            client.send(f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n")
            if path != "/never":
                assert client.answer().status == 200


def h2(running: Running, path: str) -> None:
    with closing(Http2(running.port, running.world.certificates)) as client:
        for _ in range(2):
            stream = client.start(path)
            if path != "/never":
                assert client.answer(stream).status == 200


def there() -> list[object]:
    return [item for item in gc.get_objects() if type(item) in {ClientConnection, GatewayHttpLayer, Stream}]


@pytest.mark.parametrize("path", ["/", "/never"])
@pytest.mark.parametrize("speak", [h1, h2], ids=["http1", "h2"])
def test_nothing_is_left_for_the_collector(running, no_collector, speak, path):
    for _ in range(COUNT):
        speak(running, path)
    running.until(lambda: not running.edge.connections)
    earlier = set(map(id, no_collector))
    running.until(lambda: not [item for item in there() if id(item) not in earlier])
