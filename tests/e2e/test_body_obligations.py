"""Bodies under obligations, through the real edge: both directions, streamed and whole, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from gateway.core.decision import Decision, Obligation
from gateway.core.reasons import Refusal
from gateway.obligations.plan import Obligations
from plugins.obligations import builtin
from tests.support.edge_clients import Answer, Http1
from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import HOST, Ports

REDACT = Obligation("redact_text", {"patterns": ["iban"], "texts": ["Nightingale"]})
LARGE_JSON = Obligation("require_json_body", {"max_depth": 3, "max_bytes": 7_000_000})
JSON_ONLY = Obligation("require_json_body", {"max_depth": 3, "max_bytes": 1000})
JSON = ("content-type", "application/json")
TEXT = "content-type: text/plain\r\n"
CLIENTS = pytest.mark.parametrize("client_kind", ["connect", "connect2"])
UPSTREAMS = pytest.mark.parametrize("protocol", ["http1", "h2"])


class Shout:
    """A streamed body in upper case; "!" raises, "?" refuses."""

    mode = "stream"

    def __init__(self, direction: str) -> None:
        self.kind = f"shout_{direction}"
        self.direction = direction

    def parse(self, params: Any) -> Any:
        return params

    def open(self, *_: Any) -> Shout:
        return self

    def feed(self, chunk: bytes) -> bytes | Refusal:
        if b"!" in chunk:
            raise ValueError
        return Refusal("body_invalid") if b"?" in chunk else chunk.upper()

    def finish(self) -> bytes:
        return b"."


PLUGINS = Obligations([*builtin(), Shout("request"), Shout("response")])  # type: ignore[list-item]


def under(*obligations: Obligation) -> dict[str, Any]:
    """What makes an edge demand these."""
    ports = Ports()
    ports.decision = Decision("allow", ("policy_ok",), obligations)
    return {"ports": ports, "pipeline": {"obligations": PLUGINS}}


class Scene:
    """An upstream of either protocol that answers pieces, and waits before the last one until it may go on."""

    def __init__(self, *pieces: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        self.pieces = pieces
        self.headers = headers if headers is not None else [("content-type", "text/plain")]
        self.may_end = threading.Event()
        self.may_end.set()

    async def _wait(self) -> None:
        while not self.may_end.is_set():
            await asyncio.sleep(0.005)

    async def answer1(self, talk: Talk, seen: Seen) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        await talk.send(f"HTTP/1.1 200 OK\r\n{head}transfer-encoding: chunked\r\n\r\n")
        for number, piece in enumerate(self.pieces):
            if number == len(self.pieces) - 1:
                await self._wait()
            await talk.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        await talk.send("0\r\nx-trailer: 1\r\ncontent-digest: x\r\n\r\n")

    async def answer2(self, talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.ended(stream)
        await talk.head(stream, 200, self.headers)
        for number, piece in enumerate(self.pieces):
            if number == len(self.pieces) - 1:
                await self._wait()
            await talk.data(stream, piece)
        await talk.trailers(stream, [("x-trailer", "1"), ("content-digest", "x")])

    def upstream(self, protocol: str) -> Http1Upstream | Http2Upstream:
        return Http1Upstream(self.answer1) if protocol == "http1" else Http2Upstream(self.answer2)


@pytest.fixture
def start(world, serve, request):
    """A client of an edge with obligations before an upstream."""

    def begin(client_kind: str, upstream: Any, protocol: str, *obligations: Obligation, **more: Any) -> Any:
        running = world.edge(serve(upstream).url, upstream={"protocol": protocol}, **under(*obligations), **more)
        return request.getfixturevalue(client_kind)(running)

    return begin


def first_bytes(client: Any, size: int) -> tuple[Any, bytes]:
    """Ask for /, and what has arrived of the body once `size` bytes of it are there."""
    if isinstance(client, Http1):
        client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n")
        answer = client.head()
        data = b""
        while len(data) < size:
            data += client.exactly(int(client.line(), 16))
            client.line()
        return answer, data
    stream = client.start()
    while stream not in client.answers or len(client.answers[stream].body) < size:
        client.read()
    return stream, client.answers[stream].body


# ---- responses ----


@CLIENTS
@UPSTREAMS
def test_a_response_is_redacted_while_it_streams_across_its_pieces(start, client_kind, protocol):
    scene = Scene(b"pay DE8937040", b"0440532013000 to Night", b"ingale.", headers=[("content-type", "text/plain")])
    client = start(client_kind, scene.upstream(protocol), protocol, REDACT)
    for _ in range(2):
        answer = client.ask()
        assert (answer.status, answer.body) == (200, b"pay *** to ***.")
        assert answer.get("content-length") is None
        assert answer.trailers == [("x-trailer", "1")]


@CLIENTS
@UPSTREAMS
def test_a_redacted_response_goes_on_before_the_service_has_ended_it(start, client_kind, protocol):
    scene = Scene(b"data: Nightingale\n\n", b"data: bye\n\n", headers=[("content-type", "text/event-stream")])
    scene.may_end.clear()
    client = start(client_kind, scene.upstream(protocol), protocol, REDACT)
    stream, begun = first_bytes(client, 11)
    assert begun == b"data: ***\n\n"
    scene.may_end.set()
    rest = client.answer(stream).body if not isinstance(client, Http1) else client.exactly(int(client.line(), 16))
    assert rest.endswith(b"data: bye\n\n")


@CLIENTS
@UPSTREAMS
def test_a_streamed_response_that_cannot_be_enforced_is_reset_and_looks_like_no_whole(start, client_kind, protocol):
    scene = Scene(b"fine so far\n", b"\xff\xfesecret")
    scene.may_end.clear()
    client = start(client_kind, scene.upstream(protocol), protocol, REDACT)
    stream, begun = first_bytes(client, 12)
    assert begun == b"fine so far\n"
    scene.may_end.set()
    if isinstance(client, Http1):
        assert client.closed()
        assert not client.goodbye
    else:
        answer = client.answer(stream)
        assert (answer.complete, answer.body) == (False, begun)
        assert answer.reset is not None


@CLIENTS
@UPSTREAMS
@pytest.mark.parametrize(
    "headers",
    [
        [("content-type", "image/png")],
        [("content-type", "text/plain"), ("content-encoding", "gzip")],
        [("content-type", "text/plain"), ("content-range", "bytes 0-5/10")],
        [("content-type", "text/plain; charset=utf-16")],
    ],
)
def test_a_response_that_cannot_be_read_is_a_denial_before_its_head(start, client_kind, protocol, headers):
    scene = Scene(b"secret", headers=headers)
    answer = start(client_kind, scene.upstream(protocol), protocol, REDACT).ask()
    assert (answer.status, answer.reason) == (500, "obligation_failed")
    assert b"secret" not in answer.body


@CLIENTS
@UPSTREAMS
def test_a_whole_response_under_two_obligations_is_masked_then_redacted(start, client_kind, protocol):
    scene = Scene(
        b'{"iban":"DE89370400440532013000","note":"Night', b'ingale","etag":1}', headers=[JSON, ("etag", "x")]
    )
    mask = Obligation("mask_json", {"fields": ["etag"]})
    answer = start(client_kind, scene.upstream(protocol), protocol, mask, REDACT).ask()
    assert answer.body == b'{"iban":"***","note":"***","etag":"***"}'
    assert answer.get("content-length") == str(len(answer.body))
    assert answer.get("etag") is None


@CLIENTS
def test_the_service_is_asked_for_a_whole_unencoded_response(start, client_kind):
    upstream = Http1Upstream()
    client = start(client_kind, upstream, "http1", REDACT)
    client.ask(headers=[("accept-encoding", "gzip"), ("range", "bytes=0-9"), ("if-none-match", "*"), ("accept", "*/*")])
    seen = upstream.seen[0]
    assert (seen.get("accept-encoding"), seen.get("accept")) == ("identity", "*/*")
    assert (seen.get("range"), seen.get("if-none-match")) == (None, None)


@CLIENTS
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_without_a_body_does_not_describe_the_one_that_it_would_have_had(start, client_kind, method, status):
    async def bare(talk: Talk, seen: Seen) -> None:
        length = "content-length: 9\r\n" if status == 200 else ""
        await talk.send(f"HTTP/1.1 {status} X\r\n{TEXT}{length}etag: x\r\ndigest: x\r\n\r\n")

    client = start(client_kind, Http1Upstream(bare), "http1", REDACT)
    for _ in range(2):
        answer = client.ask("/", method)
        assert (answer.status, answer.body, answer.complete) == (status, b"", True)
        assert [answer.get(name) for name in ("content-length", "etag", "digest")] == [None] * 3


@CLIENTS
@UPSTREAMS
@pytest.mark.parametrize("obligations", [(), (REDACT,), (Obligation("mask_json", {"fields": ["a"]}),)])
@pytest.mark.parametrize("empty", ["announced", "unannounced"])
def test_an_empty_response_stays_one_and_its_connection_goes_on(start, client_kind, protocol, obligations, empty):
    async def redirect(talk: Talk, seen: Seen) -> None:
        framing = "content-length: 0\r\n\r\n" if empty == "announced" else "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        await talk.send(f"HTTP/1.1 302 Found\r\nlocation: /x\r\n{framing}")

    async def redirect2(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.head(stream, 302, [("location", "/x")], end=empty == "announced")
        if empty == "unannounced":
            await talk.data(stream, b"", end=True)

    upstream = Http1Upstream(redirect) if protocol == "http1" else Http2Upstream(redirect2)
    client = start(client_kind, upstream, protocol, *obligations)
    for _ in range(2):
        answer = client.ask()
        assert (answer.status, answer.body, answer.complete, answer.get("location")) == (302, b"", True, "/x")


@CLIENTS
@UPSTREAMS
def test_a_streamed_response_of_any_length_is_framed_anew(start, client_kind, protocol):
    scene = Scene(b"ab" * 100_000, b"cd" * 100_000, headers=[("content-length", "400000"), ("etag", "x")])
    if protocol == "http1":
        scene.headers = scene.headers[1:]
    answer = start(client_kind, scene.upstream(protocol), protocol, Obligation("shout_response")).ask()
    assert answer.body == b"AB" * 100_000 + b"CD" * 100_000 + b"."
    assert (answer.get("content-length"), answer.get("etag")) == (None, None)


# ---- requests ----


def post(client: Any, body: bytes, *fields: tuple[str, str], length: bool = True) -> Answer:
    """A POST with a body whose length is announced, or not."""
    if isinstance(client, Http1):
        if length:
            return client.ask("/", "POST", list(fields), body)
        head = "".join(f"{name}: {value}\r\n" for name, value in (("host", HOST), *fields))
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        client.send(f"POST / HTTP/1.1\r\n{head}transfer-encoding: chunked\r\n\r\n".encode() + pieces + b"0\r\n\r\n")
        return client.answer("POST")
    fields = (*fields, ("content-length", str(len(body)))) if length else fields
    answer: Answer = client.ask("/", "POST", list(fields), body)
    return answer


@CLIENTS
@UPSTREAMS
@pytest.mark.parametrize("length", [True, False])
def test_a_json_body_reaches_the_service_byte_for_byte(start, client_kind, protocol, length):
    upstream = Scene(b"ok").upstream(protocol)
    client = start(client_kind, upstream, protocol, JSON_ONLY)
    body = b' {"a": [1.0, {}]}\n'
    for number in range(2):
        assert post(client, body, JSON, ("content-digest", "x"), length=length).status == 200
        seen = upstream.seen[number]
        assert (seen.body, seen.get("content-length"), seen.get("content-digest")) == (body, str(len(body)), "x")
        assert seen.get("transfer-encoding") is None


@CLIENTS
@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize(
    ("body", "fields", "status", "reason"),
    [
        (b"a=b", [JSON], 400, "body_invalid"),
        (b'{"a":1,"a":2}', [JSON], 400, "body_invalid"),
        (b"[[[[]]]]", [JSON], 400, "body_invalid"),
        (b"", [JSON], 400, "body_invalid"),
        (b'"' + b"x" * 1000 + b'"', [JSON], 413, "body_too_large"),
        (b"{}", [("content-type", "text/plain")], 415, "body_type_unsupported"),
        (b"{}", [], 415, "body_type_unsupported"),
        (b"{}", [JSON, ("content-encoding", "gzip")], 415, "body_type_unsupported"),
    ],
)
def test_a_body_that_is_refused_never_reaches_the_service(start, client_kind, length, body, fields, status, reason):
    upstream = Http1Upstream()
    client = start(client_kind, upstream, "http1", JSON_ONLY)
    answer = post(client, body, *fields, length=length)
    assert (answer.status, answer.reason) == (status, reason)
    assert upstream.connections == 0
    if answer.get("connection") is None:
        assert client.ask().status == 200


@CLIENTS
@UPSTREAMS
@pytest.mark.parametrize("length", [True, False])
def test_a_request_body_streams_through_its_transform(start, client_kind, protocol, length):
    upstream = Scene(b"ok").upstream(protocol)
    client = start(client_kind, upstream, protocol, Obligation("shout_request"))
    for number in range(2):
        assert post(client, b"hello", ("content-digest", "x"), length=length).body == b"ok"
        seen = upstream.seen[number]
        assert (seen.body, seen.get("content-length"), seen.get("content-digest")) == (b"HELLO.", None, None)


@CLIENTS
@UPSTREAMS
@pytest.mark.parametrize(("last", "status", "reason"), [(b"!", 500, "obligation_failed"), (b"?", 400, "body_invalid")])
def test_a_streamed_request_that_cannot_be_enforced_is_aborted(
    world, start, client_kind, protocol, last, status, reason
):
    upstream = Scene(b"ok").upstream(protocol)
    client = start(client_kind, upstream, protocol, Obligation("shout_request"))
    [running] = world.running
    if isinstance(client, Http1):
        client.send(f"POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 9\r\n\r\nhello")
        running.until(lambda: b"HELLO" in upstream.received)
        client.send(last + b"end")
        answer = client.answer("POST")
    else:
        stream = client.start("/", "POST", [("content-length", "9")], b"hello", end=False)
        running.until(lambda: b"HELLO" in upstream.received)
        client.data(stream, last + b"end", end=True)
        answer = client.answer(stream)
    assert (answer.status, answer.reason) == (status, reason)
    if isinstance(upstream, Http2Upstream):
        running.until(lambda: upstream.talks[0].resets)
    else:
        running.until(lambda: not upstream._open)
    assert b"END" not in upstream.received
    assert not upstream.seen[0].ended


@CLIENTS
def test_both_directions_of_one_exchange_are_transformed(start, client_kind):
    async def echo(talk: Talk, seen: Seen) -> None:
        await talk.ok(seen.body + b" heard", TEXT)

    client = start(
        client_kind, Http1Upstream(echo), "http1", Obligation("shout_request"), Obligation("shout_response"), REDACT
    )
    for _ in range(2):
        assert post(client, b"nightingale").body == b"NIGHTINGALE. HEARD."


def test_a_websocket_under_a_body_obligation_is_refused(start):
    for obligation in (REDACT, JSON_ONLY, Obligation("shout_request")):
        upstream = Http1Upstream()
        client = start("connect", upstream, "http1", obligation)
        answer = client.ask(
            headers=[
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
            ]
        )
        assert (answer.status, answer.reason) == (403, "obligation_unsupported")
        assert upstream.connections == 0


def test_a_grpc_call_under_a_body_obligation_is_refused(start):
    upstream = Http2Upstream()
    client = start("connect2", upstream, "h2", REDACT)
    answer = client.ask(
        "/svc/Method", "POST", [("content-type", "application/grpc"), ("te", "trailers")], b"\0\0\0\0\0"
    )
    assert answer.reason == "obligation_unsupported"
    assert upstream.connections == 0


@CLIENTS
def test_a_body_that_is_more_than_its_client_may_have_held_is_refused(start, client_kind):
    client = start(client_kind, Http1Upstream(), "http1", LARGE_JSON, limits={"buffer_mib_per_client": 4})
    answer = post(client, b'"' + b"x" * 5_000_000 + b'"', JSON)
    assert (answer.status, answer.reason) == (503, "overloaded")


@CLIENTS
def test_a_body_waits_while_its_client_has_much_held_and_goes_on_afterwards(world, serve, request, client_kind):
    size = 2_400_000
    running = world.edge(serve(Http1Upstream()).url, limits={"buffer_mib_per_client": 4}, **under(LARGE_JSON))
    with closing(Http1(running.port, world.certificates)) as first:
        head = f"POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: {size + 12}"
        first.send(f"{head}\r\n\r\n")
        first.send(b'"' + b"x" * size)
        running.until(lambda: running.edge.memory.content > size)
        client = request.getfixturevalue(client_kind)(running)
        with ThreadPoolExecutor(1) as executor:
            waiting = executor.submit(post, client, b'"' + b"x" * (size - 10) + b'"', JSON)
            running.until(lambda: any(running.edge.memory.is_tight(item) for item in list(running.edge.connections)))
            assert not waiting.done()
            assert running.edge.memory.content < size + (1 << 20)
            first.send(b"x" * 10 + b'"')
            assert first.answer("POST").status == 200
            assert waiting.result(10).status == 200
    running.until(lambda: running.edge.memory.content == 0)


def test_a_client_that_leaves_in_the_middle_takes_its_held_body_with_it(world, start):
    client = start("connect", Http1Upstream(), "http1", JSON_ONLY)
    [running] = world.running
    client.send(f"POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: 92\r\n\r\n[1")
    running.until(lambda: running.edge.memory.content > 0)
    client.cut()
    running.until(lambda: running.edge.memory.content == 0)
