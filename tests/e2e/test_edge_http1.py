"""HTTP/1.1 through the edge, over real TLS, to a real upstream."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from tests.support.edge_upstreams import Http1Upstream, Seen, Talk
from tests.support.edge_world import HOST

HEAD = f"HTTP/1.1\r\nhost: {HOST}\r\n"


def test_a_get_arrives_as_it_was_asked(edge, upstream, connect):
    answer = connect(edge).ask("/a/b?c=d%20e")
    assert (answer.status, answer.body) == (200, b"ok")
    [seen] = upstream.seen
    assert (seen.method, seen.target, seen.get("host")) == ("GET", "/a/b?c=d%20e", HOST)
    assert seen.get("content-length") is None


def test_a_post_with_a_length_arrives_whole(edge, upstream, connect):
    answer = connect(edge).ask("/", "POST", body=b"x" * 100_000)
    assert answer.status == 200
    [seen] = upstream.seen
    assert seen.get("content-length") == "100000"
    assert seen.body == b"x" * 100_000


def test_an_empty_post_says_that_it_is_empty(edge, upstream, connect):
    assert connect(edge).ask("/", "POST").status == 200
    assert upstream.seen[0].get("content-length") == "0"


def test_a_connection_serves_many_requests_on_one_upstream_connection(edge, upstream, connect):
    client = connect(edge)
    for number in range(5):
        assert client.ask(f"/{number}").status == 200
    assert [seen.target for seen in upstream.seen] == [f"/{number}" for number in range(5)]
    assert upstream.connections == 1


def test_pipelined_requests_are_answered_in_order(world, serve, connect):
    async def slow_first(talk: Talk, seen: Seen) -> None:
        await talk.ok(seen.target.encode())

    upstream = serve(Http1Upstream(slow_first))
    client = connect(world.edge(upstream.url))
    client.send("".join(f"GET /{number} {HEAD}\r\n" for number in range(10)))
    assert [client.answer().body for _ in range(10)] == [f"/{number}".encode() for number in range(10)]


def test_a_pipelined_request_after_a_body_is_read_from_its_own_first_byte(edge, upstream, connect):
    client = connect(edge)
    client.send(f"POST /1 {HEAD}content-length: 5\r\n\r\nhelloGET /2 {HEAD}\r\n")
    assert [client.answer().status, client.answer().status] == [200, 200]
    assert [(seen.target, seen.body) for seen in upstream.seen] == [("/1", b"hello"), ("/2", b"")]


def test_connection_close_ends_the_connection_after_the_answer(edge, connect):
    client = connect(edge)
    assert client.ask(headers=[("connection", "close")]).status == 200
    assert client.closed()
    assert client.goodbye


def test_head_has_the_length_and_no_body(world, serve, connect):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")

    client = connect(world.edge(serve(Http1Upstream(answer)).url))
    first = client.ask("/", "HEAD")
    assert (first.status, first.get("content-length"), first.get("transfer-encoding")) == (200, "1234", None)
    assert client.ask("/", "HEAD").status == 200


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_keeps_the_connection(world, serve, connect, status):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send(f"HTTP/1.1 {status} Fine\r\netag: x\r\n\r\n")

    client = connect(world.edge(serve(Http1Upstream(answer)).url))
    for _ in range(2):
        found = client.ask()
        assert (found.status, found.get("etag"), found.get("transfer-encoding")) == (status, "x", None)


def test_a_204_with_a_length_loses_the_length(world, serve, connect):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n")

    client = connect(world.edge(serve(Http1Upstream(answer)).url))
    for _ in range(2):
        found = client.ask()
        assert (found.status, found.get("content-length")) == (204, None)


def test_a_chunked_request_arrives_chunked(edge, upstream, connect):
    client = connect(edge)
    client.send(f"POST / {HEAD}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    time.sleep(0.05)
    client.send("A\r\n0123456789\r\n0\r\n\r\n")
    assert client.answer().status == 200
    [seen] = upstream.seen
    assert seen.body == b"abc0123456789"
    assert seen.get("transfer-encoding") == "chunked"


def test_an_empty_chunked_body_arrives_empty(edge, upstream, connect):
    client = connect(edge)
    client.send(f"POST / {HEAD}transfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    assert client.answer().status == 200
    assert upstream.seen[0].body == b""
    assert client.ask().status == 200


def test_trailers_of_a_request_were_not_judged_and_are_dropped(edge, upstream, connect):
    client = connect(edge)
    client.send(f"POST / {HEAD}transfer-encoding: chunked\r\ntrailer: x-a\r\n\r\n1\r\na\r\n0\r\nx-a: 1\r\n\r\n")
    assert client.answer().status == 200
    assert b"x-a" not in upstream.received
    assert client.ask().status == 200


def test_a_chunked_answer_streams(world, serve, connect):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await talk.reader.readexactly(1)
        await talk.send("2;ext=1\r\nde\r\n0\r\n\r\n")

    upstream = serve(Http1Upstream(answer))
    client = connect(world.edge(upstream.url))
    client.send(f"POST / {HEAD}transfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    answer_head = client.head()
    assert answer_head.get("transfer-encoding") == "chunked"
    assert (client.line(), client.line()) == (b"3", b"abc")


def test_trailers_of_an_answer_are_passed_on(world, serve, connect):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\n"
            "x-sum: 42\r\nX-Gateway-Subject: root\r\ncontent-length: 7\r\n\r\n"
        )

    client = connect(world.edge(serve(Http1Upstream(answer)).url))
    for _ in range(2):
        found = client.ask()
        assert (found.body, found.trailers) == (b"abc", [("x-sum", "42")])


def test_expect_100_continue_is_answered_before_the_body_comes(edge, upstream, connect):
    client = connect(edge)
    client.send(f"POST / {HEAD}content-length: 3\r\nexpect: 100-continue\r\n\r\n")
    assert client.head().status == 100
    client.send("abc")
    assert client.answer().status == 200
    [seen] = upstream.seen
    assert (seen.body, seen.get("expect")) == (b"abc", None)


def test_a_denied_request_gets_no_100_continue(edge, upstream, connect):
    client = connect(edge)
    client.send(f"POST /../x {HEAD}content-length: 3\r\nexpect: 100-continue\r\n\r\n")
    assert client.head().status == 400
    assert upstream.received == b""


def test_another_expectation_is_refused(edge, upstream, connect):
    assert connect(edge).ask(headers=[("expect", "200-maybe")]).status == 400
    assert upstream.received == b""


def test_an_early_answer_reaches_the_client_while_it_still_sends(world, serve, connect):
    async def refuse(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 403 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")

    client = connect(world.edge(serve(Http1Upstream(refuse, whole=False)).url))
    client.send(f"POST / {HEAD}content-length: 1000000\r\n\r\nabc")
    found = client.answer()
    assert (found.status, found.body) == (403, b"no")


def test_an_answer_without_a_length_is_read_until_the_upstream_closes(world, serve, connect):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\n\r\nall of it")
        talk.writer.close()

    client = connect(world.edge(serve(Http1Upstream(answer)).url))
    for _ in range(2):
        found = client.ask()
        assert (found.body, found.complete, found.get("transfer-encoding")) == (b"all of it", True, "chunked")


def test_an_http_1_0_upstream_is_understood(world, serve, connect):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.0 200 OK\r\n\r\nold")
        talk.writer.close()

    found = connect(world.edge(serve(Http1Upstream(answer)).url)).ask()
    assert (found.body, found.complete) == (b"old", True)


def test_interim_answers_are_passed_over(world, serve, connect):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
        await talk.ok(b"final")

    client = connect(world.edge(serve(Http1Upstream(answer)).url))
    assert client.ask().body == b"final"
    assert client.ask().body == b"final"


def test_server_sent_events_arrive_one_by_one(world, serve, connect):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for number in range(3):
            await talk.send(f"data: {number}\n\n")
            while len(got) <= number:
                await asyncio.sleep(0.001)
        talk.writer.close()

    got: list[bytes] = []
    client = connect(world.edge(serve(Http1Upstream(answer)).url))
    client.send(f"GET /events {HEAD}accept: text/event-stream\r\n\r\n")
    assert client.head().get("content-type") == "text/event-stream"
    for number in range(3):
        size = int(client.line(), 16)
        got.append(client.exactly(size + 2))
        assert got[-1] == f"data: {number}\n\n\r\n".encode()
    assert client.line() == b"0"


def test_an_own_endpoint_answers(edge, upstream, connect):
    client = connect(edge)
    found = client.ask("/.gateway/jwks.json")
    assert (found.status, found.body) == (200, b'{"keys":[]}')
    assert client.ask("/.gateway/ca.pem").body == b"CA"
    assert client.ask("/.gateway/none").status == 404
    assert upstream.received == b""


def test_a_client_that_says_close_notify_gets_one_back(edge, connect):
    client = connect(edge)
    assert client.ask().status == 200
    client.sock.settimeout(2)
    client.sock.unwrap()


def test_a_client_that_goes_away_takes_its_upload_with_it(world, serve, connect):
    async def wait(talk: Talk, seen: Seen) -> None:
        await upstream.body(talk, seen)

    upstream = serve(Http1Upstream(wait, whole=False))
    running = world.edge(upstream.url)
    client = connect(running)
    client.send(f"POST / {HEAD}content-length: 100\r\n\r\nabc")
    running.until(lambda: upstream.seen)
    client.cut()
    running.until(lambda: not upstream._open)
    assert not upstream.seen[0].ended
    running.until(lambda: running.counts.open == 0)


def test_plain_http_on_the_tls_port_is_cut(edge, upstream):
    with socket.create_connection(("127.0.0.1", edge.port), 5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nhost: a.localhost\r\n\r\n")
        assert not plain.recv(1000).startswith(b"HTTP")
    assert upstream.received == b""
