"""Floods: one connection cannot keep the event loop to itself, whatever it sends; a bystander is served meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import edge_floods as flood
from tests.support.edge_floods import Bystander, Flood, HostileUpstream, frame, repeated
from tests.support.edge_process import EdgeProcess
from tests.support.edge_upstreams import Http1Upstream, Seen, Talk
from tests.support.edge_world import HOST

# A tenth of the first is usual. The machine may be slow and busy with other work, so the longest wait says little.
MOST_S, LONGEST_S = 0.25, 3.0
FLOOD_S, CUT_S = 2.5, 20.0
GROWTH_MIB = 64
BLOCK = flood.request_block()
UPLOAD = frame(flood.HEADERS, flood.request_block("POST"), flags=flood.END_HEADERS, stream=1)
HEAD = f"HTTP/1.1\r\nhost: {HOST}\r\n".encode()


async def serve(talk: Talk, seen: Seen) -> None:
    """Answers requests, takes uploads without end, speaks WebSocket as little as it can."""
    if seen.target == "/ws":
        await talk.send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
                        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")  # fmt: skip
    if seen.target == "/ws" or seen.method == "POST":
        while await talk.reader.read(1 << 18):
            pass
    else:
        await talk.ok()


class Service(Http1Upstream):
    """Keeps a connection for the next request unless it carries an upload."""

    async def talk(self, talk: Talk) -> None:
        while not talk.reader.at_eof():
            await super().talk(talk)


@pytest.fixture(scope="module")
def process(whole_world) -> Iterator[EdgeProcess]:
    upstream = Service(serve, whole=False)
    whole_world.run(upstream.start())
    running = EdgeProcess(whole_world.certificates, whole_world.folder, upstream.url, "http1")
    yield running
    running.stop()
    whole_world.run(upstream.stop())
    assert running.process.returncode == 0


def many_resets() -> bytes:
    return b"".join(itertools.islice(flood.rapid_resets(BLOCK), 40_000))


H1_FLOODS: dict[str, Callable[[], bytes]] = {
    "pipelined_own_path": lambda: repeated(b"GET /.gateway/health " + HEAD + b"\r\n"),
    "pipelined_refusals": lambda: repeated(b"GET /%2e%2e/%2e%2e " + HEAD + b"\r\n"),
    "chunks_of_one_byte": lambda: b"POST / " + HEAD + b"transfer-encoding: chunked\r\n\r\n" + repeated(b"1\r\nx\r\n"),
    "websocket_empty_fragments": lambda: (
        flood.WEBSOCKET_HEAD + flood.fragment(b"x", opcode=2) + repeated(flood.fragment(b""))
    ),
    "websocket_fragments_of_one_byte": lambda: (
        flood.WEBSOCKET_HEAD + flood.fragment(b"x", opcode=1) + repeated(flood.fragment(b"x"))
    ),
    "websocket_messages_of_one_byte": lambda: (
        flood.WEBSOCKET_HEAD + repeated(flood.fragment(b"x", opcode=1, final=True))
    ),
    "websocket_pings": lambda: flood.WEBSOCKET_HEAD + repeated(flood.fragment(b"", opcode=9, final=True)),
}
H2_FLOODS: dict[str, Callable[[], bytes]] = {
    "empty_data": lambda: UPLOAD + repeated(frame(flood.DATA, stream=1)),
    "padding_only": lambda: UPLOAD + repeated(frame(flood.DATA, b"\0", flags=8, stream=1)),
    "unknown_frames": lambda: repeated(frame(0xFA)),
    "window_updates": lambda: repeated(frame(flood.WINDOW_UPDATE, b"\0\0\0\1")),
    "settings": lambda: repeated(frame(flood.SETTINGS)),
    "settings_acknowledged": lambda: repeated(frame(flood.SETTINGS, flags=1)),
    "pings": lambda: repeated(frame(flood.PING, bytes(8))),
    "priorities": lambda: repeated(frame(flood.PRIORITY, b"\0\0\0\0\1", stream=3)),
    "continuations": lambda: frame(flood.HEADERS, BLOCK, stream=1) + repeated(frame(flood.CONTINUATION, stream=1)),
    "resets_of_nothing": lambda: UPLOAD + repeated(frame(flood.RST_STREAM, b"\0\0\0\x08", stream=1)),
}


def served(bystander: Bystander) -> None:
    """Every answer came, and came soon."""
    assert bystander.failure == ""
    assert bystander.statuses == {200}
    assert bystander.percentile_s(0.95) < MOST_S + bystander.machine_s()
    assert max(bystander.took_s) < LONGEST_S


def under(
    process: EdgeProcess,
    alpn: str,
    data: bytes,
    *,
    count: int = 1,
    record_bytes: int = 1 << 14,
    seconds: float = FLOOD_S,
) -> list[Flood]:
    """Floods while a bystander asks; both are judged."""
    process.forget_most()
    before = process.rss_mib()
    with contextlib.ExitStack() as stack:
        bystander = stack.enter_context(Bystander(process))
        floods = [Flood(process, alpn, data, record_bytes=record_bytes) for _ in range(count)]
        for item in floods:
            stack.callback(item.close)
        flood.wait_for(lambda: all(item.cut for item in floods), seconds)
    served(bystander)
    assert process.most_mib() - before < GROWTH_MIB
    return floods


@pytest.mark.parametrize("kind", H1_FLOODS)
def test_an_http1_flood_leaves_the_loop_to_others(process, kind):
    under(process, "http/1.1", H1_FLOODS[kind]())


@pytest.mark.parametrize("kind", H2_FLOODS)
def test_an_http2_flood_ends_in_enhance_your_calm(process, kind):
    [item] = under(process, "h2", flood.preface() + H2_FLOODS[kind](), seconds=CUT_S)
    assert item.cut
    assert item.goaway == flood.ENHANCE_YOUR_CALM


def test_data_frames_of_one_byte_leave_the_loop_to_others(process):
    under(process, "h2", flood.preface() + UPLOAD + repeated(frame(flood.DATA, b"x", stream=1)))


def test_rapid_resets_are_cut(process):
    [item] = under(process, "h2", flood.preface() + many_resets(), seconds=CUT_S)
    assert item.cut


@pytest.mark.parametrize("payload", [b"\0\0\0\0"], ids=["window_update_of_nothing"])
def test_frames_that_make_the_edge_reset_are_cut_as_resets_are(process, payload):
    pieces = (
        frame(flood.HEADERS, BLOCK, flags=flood.END_HEADERS | flood.END_STREAM, stream=stream)
        + frame(flood.WINDOW_UPDATE, payload, stream=stream)
        for stream in range(1, 80_000, 2)
    )
    [item] = under(process, "h2", flood.preface() + b"".join(pieces), seconds=CUT_S)
    assert item.cut


def test_tls_records_of_one_byte_leave_the_loop_to_others(process):
    data = b"POST / " + HEAD + b"content-length: 1000000000\r\n\r\n" + bytes(1 << 18)
    under(process, "http/1.1", data, record_bytes=1)


@pytest.mark.parametrize("kind", ["pipelined_own_path", "websocket_fragments_of_one_byte"])
def test_many_connections_of_one_client_flood_no_more_than_one(process, kind):
    under(process, "http/1.1", H1_FLOODS[kind]()[: 1 << 20], count=16)


# ---- a hostile upstream ----

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
RESPONSE = frame(flood.HEADERS, b"\x88", flags=flood.END_HEADERS, stream=1)
H1_ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "chunks_of_one_byte": (b"GET / " + HEAD + b"\r\n", CHUNKED + repeated(b"1\r\nx\r\n")),
    "interim_answers": (b"GET / " + HEAD + b"\r\n", repeated(b"HTTP/1.1 100 C\r\n\r\n")),
    "websocket_fragments": (
        flood.WEBSOCKET_HEAD,
        SWITCH + flood.fragment(b"x", opcode=2, masked=False) + repeated(flood.fragment(b"x", masked=False)),
    ),
    "websocket_pings": (
        flood.WEBSOCKET_HEAD, SWITCH + repeated(flood.fragment(b"", opcode=9, final=True, masked=False)),
    ),
}  # fmt: skip
H2_ANSWERS: dict[str, bytes] = {
    "empty_data": RESPONSE + repeated(frame(flood.DATA, stream=1)),
    "data_of_one_byte": RESPONSE + repeated(frame(flood.DATA, b"x", stream=1)),
    "pings": repeated(frame(flood.PING, bytes(8))),
    "settings": repeated(frame(flood.SETTINGS)),
    "unknown_frames": repeated(frame(0xFA)),
    "window_updates": repeated(frame(flood.WINDOW_UPDATE, b"\0\0\0\1")),
}


@contextlib.contextmanager
def in_front_of(whole_world, upstream: HostileUpstream, protocol: str) -> Iterator[EdgeProcess]:
    whole_world.run(upstream.start())
    running = EdgeProcess(whole_world.certificates, whole_world.folder, upstream.url, protocol)
    try:
        yield running
    finally:
        running.stop()
        whole_world.run(upstream.stop())
    assert running.process.returncode == 0


def hostile(process: EdgeProcess, request: bytes) -> None:
    with Bystander(process, "/.gateway/health") as bystander:
        item = Flood(process, "http/1.1", request)
        time.sleep(FLOOD_S)
        item.close()
    served(bystander)


@pytest.mark.parametrize("kind", H1_ANSWERS)
def test_an_upstream_that_floods_leaves_the_loop_to_others(whole_world, kind):
    request, answer = H1_ANSWERS[kind]
    with in_front_of(whole_world, HostileUpstream(answer), "http1") as process:
        hostile(process, request)


@pytest.mark.parametrize("kind", H2_ANSWERS)
def test_an_http2_upstream_that_floods_leaves_the_loop_to_others(whole_world, kind):
    with in_front_of(whole_world, HostileUpstream(H2_ANSWERS[kind], http2=True), "h2") as process:
        hostile(process, b"GET / " + HEAD + b"\r\n")
