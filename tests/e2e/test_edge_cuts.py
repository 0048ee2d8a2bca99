"""What is open is cut when its verdict is no longer the one it began with, and no byte goes on after that.

The real edge over real TLS, the real pipeline, the real state store that tells of changes; two protocols on each side.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import websockets.exceptions
from websockets.asyncio.client import connect as connect_websocket
from websockets.asyncio.server import serve as serve_websocket

from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.decision import Decision, Obligation
from gateway.core.obligations import Headers
from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import Refusal
from gateway.core.subject import Device, Identity, Session, subject_key
from gateway.obligations.plan import Obligations
from gateway.pipeline import reevaluation
from gateway.pipeline.reevaluation import ContinuousEvaluation
from tests.support.edge_clients import Http1, Http2, tls_context
from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import HOST, IDENTITY, Ports, Running, World

GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
BEARER = [("authorization", "Bearer good")]
REVOKED = Decision("deny", ("policy_denied",))


class Live(Ports):
    """Ports whose answers a test changes while connections are open."""

    def __init__(self) -> None:
        super().__init__()
        self.bound: Session | Refusal = Session("session-1", time.time())
        self.known: Device | Refusal | None = None
        self.signed_in: Identity | Refusal = IDENTITY
        self.judged = 0
        self.heard_of = 0
        self.broken: Exception | None = None

    async def verify(self, peer: Any) -> Any:
        return self.known or await super().verify(peer)

    async def read(self, facts: Any, route: Any) -> Any:
        return self.signed_in if await super().read(facts, route) else None

    async def bind(self, *_: Any, before: Session | None = None, in_use: bool = True) -> Any:
        if self.broken is not None:
            raise self.broken
        return self.bound

    async def decide(self, document: Mapping[str, Any]) -> Decision:
        self.judged += 1
        return await super().decide(document)

    def invalidate(self) -> None:
        self.heard_of += 1


async def pour(talk: Talk, seen: Seen) -> None:
    """An answer without end."""
    await talk.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for number in itertools.count():
        piece = f"data: {number:08}\n\n"
        await talk.send(f"{len(piece):x}\r\n{piece}\r\n")
        await asyncio.sleep(0.002)


async def swallow(talk: Talk, seen: Seen) -> None:
    """Reads an upload without end and answers nothing."""
    while data := await talk.reader.read(1 << 16):
        seen.size += len(data)


async def pour_messages(talk: H2Talk, stream: int, seen: Seen) -> None:
    """A gRPC stream without end."""
    await talk.head(stream, 200, [("content-type", "application/grpc")])
    while stream not in talk.resets:
        await talk.data(stream, b"\0\0\0\0\x04ping")
        await asyncio.sleep(0.002)


class Mark:
    """An obligation that marks the answer."""

    kind = "mark"

    def parse(self, params: Any) -> Any:
        return params

    def response_head(self, headers: Headers, params: Any) -> Headers:
        return [*headers, ("x-marked", "1")]


class Watched:
    """An edge whose open requests are watched, with the store that tells it of changes."""

    def __init__(self, world: World, running: Running, ports: Live, store: SqliteStore) -> None:
        self.world, self.running, self.ports, self.store = world, running, ports, store
        self.watch = ContinuousEvaluation(running.edge, store)
        self.tasks = world.run(self._start())

    async def _start(self) -> list[asyncio.Task[None]]:
        tasks = [asyncio.ensure_future(work) for work in (self.watch.follow_changes(), self.watch.run_periodically())]
        await asyncio.sleep(0.05)
        return tasks

    def announce(self, kind: str = "session", key: str = "session-1") -> None:
        self.world.run(self.store.announce(kind, key))

    def revoke(self, kind: str = "session", key: str = "session-1") -> None:
        """The session is revoked, and everybody hears of it."""
        self.ports.bound = Refusal("session_revoked")
        self.announce(kind, key)

    def stop(self) -> None:
        async def end() -> None:
            for task in self.tasks:
                task.cancel()
            ended = await asyncio.gather(*self.tasks, return_exceptions=True)
            assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended
            await self.store.close()

        self.world.run(end())


@pytest.fixture
def watched(world: World, tmp_path: Path):
    started: list[Watched] = []

    def start(url: str, *, rejudge_s: float = 60, **how: Any) -> Watched:
        ports = Live()
        running = world.edge(url, ports=ports, limits={"rejudge_s": rejudge_s}, **how)

        async def opened() -> SqliteStore:
            return SqliteStore(tmp_path / "state.sqlite", bytes(32))

        started.append(Watched(world, running, ports, world.run(opened())))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def begin(client: Http1, target: str = "/", headers: str = "authorization: Bearer good\r\n") -> None:
    client.send(f"GET {target} HTTP/1.1\r\nhost: {HOST}\r\n{headers}\r\n")
    while client.buffer.count(b"data:") < 3:
        assert client.more()


def drained(client: Http1) -> bytes:
    """Everything up to the end of the connection."""
    while client.more():
        pass
    return client.buffer


# ---- each kind of connection ----


def test_an_event_stream_over_http1_ends_at_once(watched, serve, connect):
    one = watched(serve(Http1Upstream(pour)).url)
    client = connect(one.running)
    begin(client)
    started = time.monotonic()
    one.revoke()
    drained(client)
    assert time.monotonic() - started < 2
    # It ended in the middle: nothing says that the answer was whole.
    assert not client.goodbye
    assert not client.buffer.endswith(b"0\r\n\r\n")


def test_a_download_over_http2_is_reset(watched, serve, connect2):
    one = watched(serve(Http1Upstream(pour)).url)
    client = connect2(one.running)
    stream = client.start("/", headers=BEARER)
    while stream not in client.answers or not client.answers[stream].body:
        client.read()
    one.revoke()
    while stream not in client.ended and not client.gone:
        client.read()
    assert client.gone or client.answers[stream].reset == 8  # CANCEL
    assert not client.gone or not client.answers[stream].complete


def test_a_grpc_stream_ends_with_a_status(watched, serve, connect2):
    one = watched(serve(Http2Upstream(pour_messages)).url, upstream={"protocol": "h2"})
    client = connect2(one.running)
    stream = client.start("/a.B/C", "POST", [*GRPC, *BEARER], b"\0\0\0\0\0", end=False)
    while stream not in client.answers or not client.answers[stream].body:
        client.read()
    one.revoke()
    answer = client.answer(stream)
    assert answer.trailers == [("grpc-status", "16"), ("grpc-message", "session_revoked")]


def test_a_websocket_is_closed_with_1008_on_both_sides(watched, world):
    closed: list[tuple[int | None, str | None]] = []

    async def talk(socket: Any) -> None:
        try:
            async for message in socket:
                await socket.send(message)
        finally:
            closed.append((socket.close_code, socket.close_reason))

    async def serve() -> Any:
        return await serve_websocket(talk, "127.0.0.1", 0, ping_interval=None)

    server = world.run(serve())
    one = watched(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    async def dial() -> Any:
        context = tls_context(world.certificates, ["http/1.1"])
        socket = await connect_websocket(
            f"wss://{HOST}/ws",
            host="127.0.0.1",
            port=one.running.port,
            ssl=context,
            proxy=None,
            ping_interval=None,
            additional_headers=dict(BEARER),
        )
        await socket.send("hello")
        assert await socket.recv() == "hello"
        return socket

    socket = world.run(dial())
    one.revoke()
    with pytest.raises(websockets.exceptions.ConnectionClosed) as ended:
        world.run(asyncio.wait_for(socket.recv(), 5))
    assert ended.value.rcvd is not None
    assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (1008, "session_revoked")
    one.running.until(lambda: closed)
    assert closed == [(1008, "session_revoked")]

    async def end() -> None:
        await socket.close()
        server.close()
        await server.wait_closed()

    world.run(end())


def test_an_upload_is_answered_with_the_reason_and_the_service_gets_no_more(watched, serve, connect):
    upstream = serve(Http1Upstream(swallow, whole=False))
    one = watched(upstream.url)
    client = connect(one.running)
    client.send(f"POST / HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer good\r\ncontent-length: {1 << 30}\r\n\r\n")
    for _ in range(20):
        client.send(bytes(1 << 12))
    one.running.until(lambda: upstream.seen and upstream.seen[0].size == 20 << 12)
    one.revoke()
    answer = client.answer()
    assert (answer.status, answer.reason) == (401, "session_revoked")
    size = upstream.seen[0].size
    try:
        for _ in range(20):
            client.send(bytes(1 << 12))
    except OSError:
        pass
    client.closed()
    assert upstream.seen[0].size == size


def test_an_upload_over_http2_too(watched, serve, connect2):
    upstream = serve(Http1Upstream(swallow, whole=False))
    one = watched(upstream.url)
    client = connect2(one.running)
    stream = client.start("/", "POST", [*BEARER, ("content-length", str(1 << 30))], bytes(1 << 14), end=False)
    one.running.until(lambda: upstream.seen and upstream.seen[0].size == 1 << 14)
    one.revoke()
    answer = client.answer(stream)
    assert (answer.status, answer.reason) == (401, "session_revoked")


def test_a_client_that_reads_nothing_gets_nothing_of_what_waited(watched, serve, connect):
    """Megabytes wait in the gateway and in the kernel: they are dropped with the connection."""

    async def flood(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
        while True:
            await talk.send(bytes(1 << 16))

    one = watched(serve(Http1Upstream(flood)).url)
    client = connect(one.running, receive_buffer=1 << 12)
    client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer good\r\n\r\n")
    one.running.until(lambda: any(c.transport.get_write_buffer_size() for c in one.running.edge.connections))
    one.revoke()
    one.running.until(lambda: not one.running.edge.connections)
    # What this side's kernel had taken already is all there is.
    assert len(drained(client)) < 1 << 18


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
def test_other_connections_and_streams_stay(watched, serve, connect, connect2, alpn):
    one = watched(serve(Http1Upstream(pour)).url)
    mine: Any = (connect if alpn == "http/1.1" else connect2)(one.running)
    other = connect(one.running)
    begin(other, headers="")
    if isinstance(mine, Http2):
        stream, public = mine.start("/", headers=BEARER), mine.start("/")
        while len(mine.answers) < 2:
            mine.read()
    else:
        begin(mine)
    one.revoke()
    if isinstance(mine, Http2):
        while stream not in mine.ended:
            mine.read()
        before = len(mine.answers[public].body)
        while len(mine.answers[public].body) < before + 200:
            mine.read()
    else:
        drained(mine)
    before = len(other.buffer)
    while len(other.buffer) < before + 200:
        assert other.more()


# ---- each kind of change ----


@pytest.mark.parametrize(
    ("kind", "key", "change"),
    [
        ("session", "session-1", {"bound": Refusal("session_revoked")}),
        ("device", "dev-1", {"known": Refusal("device_revoked")}),
        ("subject", subject_key(IDENTITY.issuer, IDENTITY.subject), {"decision": REVOKED}),
        ("all", "", {"decision": REVOKED}),
    ],
)
def test_what_changed_is_judged_again_at_once(watched, serve, connect, kind, key, change):
    one = watched(serve(Http1Upstream(pour)).url)
    client = connect(one.running)
    begin(client)
    for name, value in change.items():
        setattr(one.ports, name, value)
    one.announce(kind, key)
    drained(client)
    [cut] = [event for event in one.ports.events if event.get("cut")]
    expected = change.get("bound") or change.get("known") or change.get("decision")
    assert cut["reasons"] == [getattr(expected, "reason", None) or expected.reasons[0]]
    assert one.running.counts.cuts == cut["reasons"]


@pytest.mark.parametrize(("kind", "key"), [("session", "another"), ("device", "another"), ("subject", "another")])
def test_what_others_changed_costs_nothing(watched, serve, connect, kind, key):
    one = watched(serve(Http1Upstream(pour)).url)
    client = connect(one.running)
    begin(client)
    judged = one.ports.judged
    one.revoke(kind, key)
    one.running.until(lambda: one.ports.heard_of)
    time.sleep(0.1)
    assert one.ports.judged == judged
    assert client.more()


def test_a_new_policy_is_applied_to_what_is_open(watched, serve, connect):
    one = watched(serve(Http1Upstream(pour)).url)
    client = connect(one.running)
    begin(client)
    one.ports.decision = REVOKED
    one.world.run(one.watch.reevaluate_all())
    drained(client)


def test_an_obligation_that_was_not_there_at_the_beginning_ends_it(watched, serve, connect):
    one = watched(serve(Http1Upstream(pour)).url, pipeline={"obligations": Obligations([Mark()])})
    client = connect(one.running)
    begin(client)
    one.ports.decision = Decision("allow", ("policy_ok",), (Obligation("mark"),))
    one.announce()
    drained(client)
    assert [event["reasons"] for event in one.ports.events if event.get("cut")] == [["obligations_changed"]]


@pytest.mark.parametrize(
    ("after", "cut"),
    [({"text": "b"}, True), ({"text": "a", "more": 1}, True), ({}, True), ({"text": "a"}, False)],
)
def test_an_obligation_with_other_parameters_ends_it(watched, serve, connect, after, cut):
    one = watched(serve(Http1Upstream(pour)).url, pipeline={"obligations": Obligations([Mark()])})
    one.ports.decision = Decision("allow", ("policy_ok",), (Obligation("mark", {"text": "a"}),))
    client = connect(one.running)
    begin(client)
    judged = one.ports.judged
    one.ports.decision = Decision("allow", ("policy_ok",), (Obligation("mark", after),))
    one.announce()
    if cut:
        drained(client)
    else:
        one.running.until(lambda: one.ports.judged > judged)
        assert client.more()
    expected = [["obligations_changed"]] if cut else []
    assert [event["reasons"] for event in one.ports.events if event.get("cut")] == expected


def test_an_expired_token_is_noticed_by_the_clock(watched, serve, connect):
    one = watched(serve(Http1Upstream(pour)).url, rejudge_s=0.3)
    client = connect(one.running)
    begin(client)
    one.ports.signed_in = Refusal("token_expired")
    started = time.monotonic()
    drained(client)
    assert time.monotonic() - started < 3


def test_a_zero_log_stream_is_cut_without_a_trace(watched, serve, connect):
    one = watched(serve(Http1Upstream(pour)).url, route={"plane": "user"})
    client = connect(one.running)
    begin(client)
    one.revoke()
    drained(client)
    assert (one.ports.events, one.running.counts.cuts) == ([], [])


def test_a_change_while_the_verdict_is_on_its_way_is_not_missed(watched, serve, connect):
    one = watched(serve(Http1Upstream(pour)).url)
    client = connect(one.running)
    one.ports.delay_s = 0.5  # the session is read before, the verdict stands after
    client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer good\r\n\r\n")
    one.running.until(lambda: one.ports.judged)
    one.revoke()
    one.ports.delay_s = 0.0
    drained(client)


# ---- trouble ----


def test_a_moment_without_the_store_cuts_nothing_and_a_long_one_does(watched, serve, connect, monkeypatch):
    one = watched(serve(Http1Upstream(pour)).url, rejudge_s=0.1)
    client = connect(one.running)
    begin(client)
    one.ports.broken = StoreDown("away")
    time.sleep(0.5)
    one.ports.broken = None
    time.sleep(0.3)
    client.buffer = b""
    assert client.more()
    monkeypatch.setattr(reevaluation, "DOUBT_S", 0.5)
    one.ports.broken = StoreDown("away")
    drained(client)
    assert one.running.counts.cuts == ["store_down"]


def test_an_error_of_the_gateways_own_is_a_doubt_too(watched, serve, connect, monkeypatch):
    monkeypatch.setattr(reevaluation, "DOUBT_S", 0.3)
    one = watched(serve(Http1Upstream(pour)).url, rejudge_s=0.1)
    client = connect(one.running)
    begin(client)
    one.ports.broken = RuntimeError("a bug")
    drained(client)
    assert one.running.counts.cuts == ["gateway_error"]


def test_changes_that_were_forgotten_mean_that_everything_changed(watched, serve, connect, monkeypatch):
    """A follower that hears of nothing for longer than changes are kept judges all there is."""
    one = watched(serve(Http1Upstream(pour)).url)
    client = connect(one.running)
    begin(client)
    one.ports.bound = Refusal("session_revoked")

    async def forgotten(after: int) -> None:
        return None

    monkeypatch.setattr(one.store, "changes", forgotten)
    one.announce("session", "another")
    drained(client)


def test_ten_thousand_revocations_at_once_end_in_one_cut(watched, serve, connect):
    one = watched(serve(Http1Upstream(pour)).url)
    client = connect(one.running)
    begin(client)
    one.ports.bound = Refusal("session_revoked")

    async def storm() -> None:
        await asyncio.gather(*(one.store.announce("session", f"other-{n}") for n in range(10_000)))
        await one.store.announce("session", "session-1")

    one.world.run(storm())
    drained(client)
    assert one.running.counts.cuts == ["session_revoked"]
