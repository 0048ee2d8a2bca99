"""HTTP/2 from the client, over real TLS, to HTTP/1.1 and HTTP/2 upstreams."""

from __future__ import annotations

import asyncio

import h2.errors
import pytest

from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import HOST

PSEUDO = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")]


@pytest.fixture
def edge2(world, upstream2):
    """An edge in front of the recording HTTP/2 upstream."""
    return world.edge(upstream2.url, upstream={"protocol": "h2"})


def test_a_get_arrives_at_an_http1_upstream(edge, upstream, connect2):
    answer = connect2(edge).ask("/a?b=c")
    assert (answer.status, answer.body) == (200, b"ok")
    [seen] = upstream.seen
    assert (seen.method, seen.target, seen.get("host")) == ("GET", "/a?b=c", HOST)
    assert (seen.get("content-length"), seen.get("transfer-encoding")) == (None, None)


def test_a_get_arrives_at_an_http2_upstream(edge2, upstream2, connect2):
    answer = connect2(edge2).ask("/a?b=c")
    assert (answer.status, answer.body) == (200, b"ok")
    [seen] = upstream2.seen
    assert (seen.method, seen.target, seen.get(":authority"), seen.get("host")) == ("GET", "/a?b=c", HOST, None)


def test_an_http1_client_reaches_an_http2_upstream(edge2, upstream2, connect):
    client = connect(edge2)
    for _ in range(2):
        assert client.ask("/", "POST", body=b"hello").body == b"ok"
    assert [seen.body for seen in upstream2.seen] == [b"hello", b"hello"]
    assert upstream2.connections == 1


def test_a_post_with_a_length_arrives_whole(edge, upstream, connect2):
    body = b"x" * 300_000
    assert connect2(edge).ask("/", "POST", [("content-length", str(len(body)))], body).status == 200
    assert upstream.seen[0].body == body
    assert upstream.seen[0].get("content-length") == str(len(body))


def test_a_post_without_a_length_arrives_chunked(edge, upstream, connect2):
    assert connect2(edge).ask("/", "POST", body=b"abc").status == 200
    assert upstream.seen[0].body == b"abc"
    assert upstream.seen[0].get("transfer-encoding") == "chunked"


def test_a_body_that_is_empty_after_all_arrives_empty(edge, upstream, connect2):
    client = connect2(edge)
    assert client.ask("/", "POST", body=b"").status == 200
    assert upstream.seen[0].body == b""


def test_many_streams_at_once_use_few_upstream_connections(world, serve, connect2):
    async def slowly(talk: Talk, seen: Seen) -> None:
        await asyncio.sleep(0.01)
        await talk.ok(seen.target.encode())

    upstream = serve(Http1Upstream(slowly))
    client = connect2(world.edge(upstream.url))
    streams = [client.start(f"/{number}") for number in range(20)]
    assert [client.answer(stream).body for stream in streams] == [f"/{number}".encode() for number in range(20)]
    first = upstream.connections
    for number in range(20):
        assert client.ask(f"/{number}").status == 200
    assert upstream.connections == first <= 20


def test_streams_share_one_http2_upstream_connection(edge2, upstream2, connect2):
    client = connect2(edge2)
    streams = [client.start(f"/{number}") for number in range(30)]
    assert {client.answer(stream).status for stream in streams} == {200}
    assert upstream2.connections == 1


def test_more_streams_than_the_upstream_takes_wait_for_their_turn(world, serve, connect2):
    async def count(talk: H2Talk, stream: int, seen: Seen) -> None:
        open_now.append(stream)
        most.append(len(open_now))
        await talk.ended(stream)
        await asyncio.sleep(0.005)
        open_now.remove(stream)
        await talk.head(stream, end=True)

    class Few(Http2Upstream):
        async def talk(self, talk: Talk) -> None:
            await super().talk(talk)

    open_now: list[int] = []
    most: list[int] = []
    client = connect2(world.edge(serve(Few(count)).url, upstream={"protocol": "h2"}))
    streams = [client.start(f"/{number}") for number in range(40)]
    assert {client.answer(stream).status for stream in streams} == {200}


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_ends_its_stream(world, serve, connect2, status):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send(f"HTTP/1.1 {status} Fine\r\n\r\n")

    client = connect2(world.edge(serve(Http1Upstream(answer)).url))
    for _ in range(2):
        found = client.ask()
        assert (found.status, found.body, found.complete) == (status, b"", True)


def test_head_has_the_length_and_no_body(world, serve, connect2):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")

    found = connect2(world.edge(serve(Http1Upstream(answer)).url)).ask("/", "HEAD")
    assert (found.status, found.get("content-length"), found.body, found.complete) == (200, "1234", b"", True)


def test_trailers_of_an_answer_are_passed_on(world, serve, connect2):
    async def answer(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.head(stream)
        await talk.data(stream, b"abc")
        await talk.trailers(stream, [("x-sum", "42"), ("x-gateway-subject", "root"), ("x_gateway_email", "a@b")])

    client = connect2(world.edge(serve(Http2Upstream(answer)).url, upstream={"protocol": "h2"}))
    for _ in range(2):
        found = client.ask()
        assert (found.body, found.trailers, found.complete) == (b"abc", [("x-sum", "42")], True)


def test_trailers_that_are_all_dropped_still_end_the_stream(world, serve, connect2):
    async def answer(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.head(stream)
        await talk.data(stream, b"abc")
        await talk.trailers(stream, [("x-gateway-subject", "root")])

    found = connect2(world.edge(serve(Http2Upstream(answer)).url, upstream={"protocol": "h2"})).ask()
    assert (found.body, found.trailers, found.complete) == (b"abc", [], True)


def test_trailers_go_from_http1_to_http2_and_back(world, serve, connect, connect2):
    async def one(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")

    async def two(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.head(stream)
        await talk.data(stream, b"a")
        await talk.trailers(stream, [("x-sum", "1")])

    up = connect2(world.edge(serve(Http1Upstream(one)).url)).ask()
    down = connect(world.edge(serve(Http2Upstream(two)).url, upstream={"protocol": "h2"})).ask()
    assert up.trailers == down.trailers == [("x-sum", "1")]


def test_trailers_of_a_request_were_not_judged_and_are_dropped(edge, upstream, connect2):
    client = connect2(edge)
    stream = client.start("/", "POST", end=False)
    client.data(stream, b"abc")
    client.conn.send_headers(stream, [("x-a", "1")], end_stream=True)
    client.flush()
    assert client.answer(stream).status == 200
    assert (upstream.seen[0].body, upstream.seen[0].ended) == (b"abc", True)
    assert b"x-a" not in upstream.received


def test_expect_100_continue_is_answered_before_the_body_comes(edge, upstream, connect2):
    client = connect2(edge)
    stream = client.start("/", "POST", [("expect", "100-continue")], end=False)
    while not client.interim:
        client.read()
    assert client.interim == [100]
    client.data(stream, b"abc", end=True)
    assert client.answer(stream).status == 200
    assert upstream.seen[0].body == b"abc"


def test_an_early_answer_ends_the_stream_without_an_error(world, serve, connect2):
    async def refuse(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.head(stream, 403, end=True)
        talk.conn.reset_stream(stream, 0)
        await talk.flush()

    client = connect2(world.edge(serve(Http2Upstream(refuse)).url, upstream={"protocol": "h2"}))
    stream = client.start("/", "POST", end=False)
    found = client.answer(stream)
    assert (found.status, found.complete) == (403, True)
    while found.reset is None:
        client.read()
    assert found.reset == h2.errors.ErrorCodes.NO_ERROR
    assert client.ask().status == 403


def test_an_early_answer_of_an_http1_upstream_is_whole(world, serve, connect2):
    async def refuse(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 403 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")

    client = connect2(world.edge(serve(Http1Upstream(refuse, whole=False)).url))
    found = client.answer(client.start("/", "POST", end=False))
    assert (found.status, found.body, found.complete) == (403, b"no", True)
    assert found.reset in {None, h2.errors.ErrorCodes.NO_ERROR}


def test_a_denied_upload_gets_its_answer_and_no_error(edge, upstream, connect2):
    client = connect2(edge)
    stream = client.start("/a/../b", "POST", end=False)
    found = client.answer(stream)
    assert (found.status, found.reason, found.complete) == (400, "malformed_request", True)
    while found.reset is None:
        client.read()
    assert found.reset == h2.errors.ErrorCodes.NO_ERROR
    assert upstream.received == b""
    assert client.ask().status == 200


def test_a_denial_waits_for_the_clients_window(edge, connect2):
    client = connect2(edge, window=10)
    stream = client.start("/a/../b", "POST", end=False)
    while stream not in client.answers:
        client.read()
    while len(client.answers[stream].body) < 10:
        client.read()
    client.conn.increment_flow_control_window(10_000, stream)
    client.flush()
    found = client.answer(stream)
    assert found.body.endswith(b"}\n")


def test_a_cancelled_stream_is_cancelled_upstream(world, serve, connect2):
    async def never(talk: H2Talk, stream: int, seen: Seen) -> None:
        await asyncio.sleep(60)

    upstream = serve(Http2Upstream(never))
    running = world.edge(upstream.url, upstream={"protocol": "h2"})
    client = connect2(running)
    stream = client.start()
    running.until(lambda: upstream.seen)
    client.conn.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    running.until(lambda: upstream.talks[0].resets)
    assert upstream.connections == 1
    assert upstream._open


def test_a_cancelled_stream_ends_its_http1_upstream_connection(world, serve, connect2):
    async def never(talk: Talk, seen: Seen) -> None:
        await talk.reader.read()

    upstream = serve(Http1Upstream(never))
    running = world.edge(upstream.url)
    client = connect2(running)
    stream = client.start()
    running.until(lambda: upstream.seen)
    client.conn.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    running.until(lambda: not upstream._open)


def test_cookie_crumbs_arrive_as_one_cookie(edge, upstream, connect2):
    connect2(edge).ask("/", headers=[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")])
    assert upstream.seen[0].all("cookie") == ["a=1; b=2"]


def test_server_sent_events_arrive_one_by_one(world, serve, connect2):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for number in range(3):
            await talk.send(f"data: {number}\n\n")
            await turns.get()

    async def make() -> asyncio.Queue[int]:
        return asyncio.Queue()

    turns = world.run(make())
    client = connect2(world.edge(serve(Http1Upstream(answer)).url))
    stream = client.start()
    for number in range(3):
        wanted = "".join(f"data: {n}\n\n" for n in range(number + 1)).encode()
        while stream not in client.answers or client.answers[stream].body != wanted:
            client.read()
        world.loop.call_soon_threadsafe(turns.put_nowait, 1)


# ---- what no one may say ----


@pytest.mark.parametrize(
    ("pseudo", "headers"),
    [
        (PSEUDO, [("transfer-encoding", "chunked")]),
        (PSEUDO, [("connection", "close")]),
        (PSEUDO, [("keep-alive", "1")]),
        (PSEUDO, [("proxy-connection", "x")]),
        (PSEUDO, [("upgrade", "h2c")]),
        (PSEUDO, [("te", "gzip")]),
        (PSEUDO, [("X-Upper", "1")]),
        (PSEUDO, [("x", "a\r\nb: c")]),
        (PSEUDO, [("x", "a\nb")]),
        (PSEUDO, [("x", "a\0b")]),
        (PSEUDO, [("x y", "1")]),
        (PSEUDO, [("x:y", "1")]),
        (PSEUDO, [("", "1")]),
        (PSEUDO, [(":path", "/b")]),
        (PSEUDO, [("a", "b"), (":x", "y")]),
        ([*PSEUDO, (":path", "/b")], []),
        ([*PSEUDO, (":method", "POST")], []),
        ([*PSEUDO, (":authority", HOST)], []),
        ([*PSEUDO, (":status", "200")], []),
        ([*PSEUDO, (":protocol", "websocket")], []),
        ([*PSEUDO, (":other", "1")], []),
        (PSEUDO[1:], []),
        (PSEUDO[:1] + PSEUDO[2:], []),
        (PSEUDO[:3], []),
        ([(":method", "CONNECT"), (":authority", HOST)], []),
        ([(":method", "connect"), *PSEUDO[1:]], []),
        ([(":method", "CONNECT"), *PSEUDO[1:]], []),
        ([(":method", "TRACE"), *PSEUDO[1:]], []),
        ([(":method", "GET /x HTTP/1.1\r\nx: y"), *PSEUDO[1:]], []),
        ([*PSEUDO[:3], (":path", "")], []),
        ([*PSEUDO[:3], (":path", "*")], []),
        ([*PSEUDO[:3], (":path", "x")], []),
        ([*PSEUDO[:3], (":path", f"https://{HOST}/")], []),
        ([*PSEUDO[:3], (":path", "/a b")], []),
        ([*PSEUDO[:3], (":path", "/ HTTP/1.1\r\nhost: x\r\n\r\n")], []),
        ([*PSEUDO[:3], (":path", "/a/%2e%2e/b")], []),
        ([*PSEUDO[:3], (":path", "/a%2fb")], []),
        ([*PSEUDO[:3], (":path", "/#x")], []),
        ([*PSEUDO[:2], (":authority", "a.localhost, b.localhost"), PSEUDO[3]], []),
        ([*PSEUDO[:2], (":authority", "user@a.localhost"), PSEUDO[3]], []),
        ([*PSEUDO[:2], (":authority", ""), PSEUDO[3]], []),
        ([*PSEUDO[:2], (":authority", "a.localhost/x"), PSEUDO[3]], []),
        (PSEUDO, [("host", "b.localhost")]),
        (PSEUDO, [("host", HOST), ("host", HOST)]),
        (PSEUDO, [("content-length", "5")]),
        (PSEUDO, [("content-length", "0"), ("content-length", "5")]),
        (PSEUDO, [("content-length", "+0")]),
        (PSEUDO, [("content-length", "0, 0")]),
    ],
)
def test_a_request_that_breaks_the_rules_is_refused_and_goes_nowhere(edge, upstream, connect2, pseudo, headers):
    client = connect2(edge)
    stream = client.start(pseudo=pseudo, headers=headers)
    while stream not in client.ended and not client.gone:
        client.read()
    if stream in client.answers and client.answers[stream].status:
        assert client.answers[stream].status == 400
        assert client.answers[stream].reason == "malformed_request"
    else:
        assert client.terminated or client.answers[stream].reset
    assert upstream.received == b""


@pytest.mark.parametrize("authority", ["b.localhost", "x.wild.localhost", "nowhere.example"])
def test_another_authority_than_the_server_name_is_misdirected(edge, upstream, connect2, authority):
    found = connect2(edge, authority=authority).ask()
    assert (found.status, found.reason) == (421, "misdirected_request")
    assert upstream.received == b""


def test_a_body_longer_than_its_length_never_becomes_a_request(world, serve, connect2):
    upstream = serve(Http1Upstream())
    running = world.edge(upstream.url)
    client = connect2(running)
    stream = client.start("/", "POST", [("content-length", "3")], end=False)
    client.conn.send_data(stream, b"abcGET /x HTTP/1.1\r\n\r\n", end_stream=True)
    client.flush()
    client.until_gone()
    assert client.terminated == h2.errors.ErrorCodes.PROTOCOL_ERROR
    assert not [seen for seen in upstream.seen if seen.ended]


def test_a_body_shorter_than_its_length_never_becomes_a_request(world, serve, connect2):
    upstream = serve(Http1Upstream())
    client = connect2(world.edge(upstream.url))
    stream = client.start("/", "POST", [("content-length", "30")], end=False)
    client.conn.send_data(stream, b"abc", end_stream=True)
    client.flush()
    client.until_gone()
    assert not [seen for seen in upstream.seen if seen.ended]
