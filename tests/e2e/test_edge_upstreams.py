"""The upstream's side: verified TLS, pooled connections, several addresses, and every way an upstream can fail."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import pytest

from gateway.config import Health
from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import HOST, free_port

HEAD = f"HTTP/1.1\r\nhost: {HOST}\r\n"


def tls_server(world, *, alpn: str = "http/1.1", ask: bool = False) -> ssl.SSLContext:
    own = world.certificates
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.upstream.cert_file, own.upstream.key_file)
    context.set_alpn_protocols([alpn])
    if ask:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(own.upstream_ca.cert_file)
    return context


@pytest.fixture
def secured(world):
    """Settings of an upstream whose certificate is right."""
    return {"ca": world.certificates.upstream_ca.cert_file, "server_name": "up.localhost"}


# ---- TLS ----


@pytest.mark.parametrize("name", ["up.localhost", "localhost"])
def test_a_verified_upstream_is_used(world, serve, connect, secured, name):
    upstream = serve(Http1Upstream(tls=tls_server(world)))
    client = connect(world.edge(upstream.url, upstream=secured | {"server_name": name}))
    assert [client.ask().status for _ in range(3)] == [200, 200, 200]
    assert upstream.connections == 1


def test_an_upstream_of_another_authority_is_unreachable(world, serve, connect, secured):
    upstream = serve(Http1Upstream(tls=tls_server(world)))
    wrong = secured | {"ca": world.certificates.foreign_ca.cert_file}
    found = connect(world.edge(upstream.url, upstream=wrong)).ask()
    assert (found.status, found.reason) == (502, "upstream_unreachable")
    assert upstream.received == b""


def test_an_upstream_of_no_known_authority_is_unreachable(world, serve, connect):
    upstream = serve(Http1Upstream(tls=tls_server(world)))
    found = connect(world.edge(upstream.url, upstream={"server_name": "up.localhost"})).ask()
    assert (found.status, found.reason) == (502, "upstream_unreachable")


@pytest.mark.parametrize("name", ["other.localhost", None])
def test_an_upstream_with_another_name_is_unreachable(world, serve, connect, secured, name):
    upstream = serve(Http1Upstream(tls=tls_server(world)))
    found = connect(world.edge(upstream.url, upstream=secured | {"server_name": name})).ask()
    assert (found.status, found.reason) == (502, "upstream_unreachable")
    assert upstream.received == b""


def test_each_address_is_verified_under_its_own_name(world, serve, connect):
    upstream = serve(Http1Upstream(tls=tls_server(world)))
    urls = [f"https://127.0.0.1:{upstream.port}", f"https://localhost:{upstream.port}"]
    running = world.edge(urls, upstream={"ca": world.certificates.upstream_ca.cert_file})
    client = connect(running)
    assert [client.ask().status for _ in range(3)] == [200, 200, 200]


def test_an_upstream_that_speaks_no_tls_is_unreachable(world, upstream, connect, secured):
    found = connect(
        world.edge(upstream.url.replace("http", "https"), upstream=secured | {"connect_timeout_s": 0.3})
    ).ask()
    assert (found.status, found.reason) == (502, "upstream_unreachable")


def test_the_gateway_shows_its_own_certificate(world, serve, connect, secured):
    own = world.certificates
    upstream = serve(Http1Upstream(tls=tls_server(world, ask=True)))
    pair = {"certificate": own.upstream_client.cert_file, "key": own.upstream_client.key_file}
    assert connect(world.edge(upstream.url, upstream=secured | pair)).ask().status == 200
    assert upstream.peers[0]["subject"] == ((("commonName", "upstream-client"),),)


def test_without_a_certificate_an_upstream_that_asks_for_one_fails(world, serve, connect, secured):
    upstream = serve(Http1Upstream(tls=tls_server(world, ask=True)))
    found = connect(world.edge(upstream.url, upstream=secured)).ask()
    assert found.status == 502
    assert upstream.received == b""


def test_an_http2_upstream_over_tls(world, serve, connect2, secured):
    upstream = serve(Http2Upstream(tls=tls_server(world, alpn="h2")))
    client = connect2(world.edge(upstream.url, upstream=secured | {"protocol": "h2"}))
    assert [client.ask().status for _ in range(3)] == [200, 200, 200]
    assert upstream.connections == 1


def test_an_http2_upstream_that_agrees_to_something_else_is_unreachable(world, serve, connect2, secured):
    upstream = serve(Http1Upstream(tls=tls_server(world)))
    found = connect2(world.edge(upstream.url, upstream=secured | {"protocol": "h2"})).ask()
    assert (found.status, found.reason) == (502, "upstream_unreachable")
    assert upstream.received == b""


# ---- the pool ----


def test_clients_after_each_other_share_a_pooled_connection(world, upstream, connect, connect2):
    running = world.edge(upstream.url)
    for _ in range(3):
        client = connect(running)
        assert client.ask().status == 200
        client.close()
        running.until(lambda: running.counts.open == 0)
    assert connect2(running).ask().status == 200
    assert upstream.connections == 1


def test_twenty_requests_over_http2_use_one_upstream_connection(edge, upstream, connect2):
    client = connect2(edge)
    for _ in range(20):
        assert client.ask("/", "POST", body=b"x").status == 200
    assert upstream.connections == 1


def test_a_pooled_connection_that_has_ended_is_not_used(edge, upstream, connect2, world):
    client = connect2(edge)
    assert client.ask().status == 200
    world.run(upstream.drop())
    edge.until(lambda: not upstream._open)
    time.sleep(0.05)
    assert client.ask().status == 200
    assert upstream.connections == 2


def test_a_kept_connection_that_has_ended_is_not_used(edge, upstream, connect, world):
    client = connect(edge)
    assert client.ask().status == 200
    world.run(upstream.drop())
    edge.until(lambda: not upstream._open)
    time.sleep(0.05)
    assert client.ask().status == 200


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_a_request_that_meets_a_dying_connection_is_asked_again(world, serve, request, kind):
    async def once(talk: Talk, seen: Seen) -> None:
        if turns:
            turns.clear()
            await talk.ok()
        elif talk.number == 1:
            talk.reset()
        else:
            await talk.ok(b"again")

    turns = [1]
    upstream = serve(Http1Upstream(once))
    client = request.getfixturevalue(kind)(world.edge(upstream.url))
    assert client.ask().status == 200
    assert client.ask().body == b"again"
    assert upstream.connections == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_request_that_may_have_had_an_effect_is_not_asked_again(world, serve, connect, method):
    async def once(talk: Talk, seen: Seen) -> None:
        if len(upstream.seen) == 1:
            await talk.ok()
        else:
            talk.reset()

    upstream = serve(Http1Upstream(once))
    client = connect(world.edge(upstream.url))
    assert client.ask().status == 200
    found = client.ask("/", method)
    assert (found.status, found.reason) == (502, "upstream_broken")
    assert len(upstream.seen) == 2


def test_bytes_nobody_asked_for_are_no_answer(world, serve, connect):
    async def twice(talk: Talk, seen: Seen) -> None:
        await talk.ok(b"one")
        await asyncio.sleep(0.02)
        await talk.ok(b"evil")

    client = connect(world.edge(serve(Http1Upstream(twice)).url))
    for _ in range(3):
        assert client.ask().body == b"one"
        time.sleep(0.05)


def test_bytes_after_an_answer_are_no_answer(world, serve, connect):
    async def twice(talk: Talk, seen: Seen) -> None:
        await talk.send(
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\noneHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
        )

    client = connect(world.edge(serve(Http1Upstream(twice)).url))
    assert [client.ask().body for _ in range(3)] == [b"one"] * 3


# ---- several addresses ----


def test_an_address_that_is_down_is_passed_over(world, upstream, connect):
    running = world.edge([f"http://127.0.0.1:{free_port()}", upstream.url])
    client = connect(running)
    assert [client.ask(headers=[("connection", "close")] if n == 5 else None).status for n in range(6)] == [200] * 6
    assert running.edge.generation.upstreams["svc"].healthy == 1


def test_two_addresses_take_turns(world, serve, connect):
    first, second = serve(Http1Upstream()), serve(Http1Upstream())
    client = connect(world.edge([first.url, second.url]))
    for _ in range(10):
        assert client.ask().status == 200
    assert (len(first.seen), len(second.seen)) == (5, 5)


def test_with_every_address_down_the_upstream_is_unreachable(world, connect, upstream2, connect2):
    running = world.edge([f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"])
    client = connect(running)
    for _ in range(2):
        found = client.ask("/", "POST", body=b"abc")
        assert (found.status, found.reason) == (502, "upstream_unreachable")
    assert connect2(running).ask().status == 502


def test_health_checks_take_an_address_out_and_in_again(world, serve, connect):
    async def health(talk: Talk, seen: Seen) -> None:
        await (talk.ok() if good or seen.target != "/up" else talk.send("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"))

    good = [1]
    upstream, other = serve(Http1Upstream(health)), serve(Http1Upstream())
    check = Health(path="/up", interval_s=0.05, timeout_s=1)
    running = world.edge([upstream.url, other.url], upstream={"health": check})
    state = running.edge.generation.upstreams["svc"]
    running.until(lambda: any(seen.target == "/up" for seen in upstream.seen))
    assert state.healthy == 2
    good.clear()
    running.until(lambda: state.healthy == 1)
    before = len(other.seen)
    client = connect(running)
    for _ in range(4):
        assert client.ask("/work").status == 200
    assert not [seen for seen in upstream.seen if seen.target == "/work"]
    assert len([seen for seen in other.seen[before:] if seen.target == "/work"]) == 4
    good.append(1)
    running.until(lambda: state.healthy == 2)


# ---- failures ----


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\nx: y\n\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 99 No\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
    ],
    ids=lambda said: said[:40].decode(),
)
@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_an_upstream_that_answers_nonsense_is_broken(world, serve, request, kind, said):
    async def babble(talk: Talk, seen: Seen) -> None:
        await talk.send(said)
        talk.writer.close()

    found = request.getfixturevalue(kind)(world.edge(serve(Http1Upstream(babble)).url)).ask()
    assert (found.status, found.reason) == (502, "upstream_broken")


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_an_upstream_that_resets_before_its_head_is_broken(world, serve, request, kind):
    async def reset(talk: Talk, seen: Seen) -> None:
        talk.reset()

    client = request.getfixturevalue(kind)(world.edge(serve(Http1Upstream(reset)).url))
    found = client.ask("/", "POST", body=b"abc")
    assert (found.status, found.reason) == (502, "upstream_broken")
    assert client.ask("/", "POST", body=b"abc").status == 502


@pytest.mark.parametrize(
    "head",
    ["content-length: 100\r\n", "transfer-encoding: chunked\r\n", ""],
    ids=["length", "chunked", "until close"],
)
@pytest.mark.parametrize("kind", ["connect", "connect2"])
@pytest.mark.parametrize("secure", [False, True])
def test_a_body_that_breaks_off_is_a_cut_and_no_short_body(world, serve, request, secured, kind, head, secure):
    async def reset(talk: Talk, seen: Seen) -> None:
        await talk.send(f"HTTP/1.1 200 OK\r\n{head}\r\n3\r\nabc\r\n")
        await asyncio.sleep(0.02)
        talk.reset()

    upstream = serve(Http1Upstream(reset, tls=tls_server(world) if secure else None))
    found = request.getfixturevalue(kind)(world.edge(upstream.url, upstream=secured)).ask()
    assert (found.status, found.complete) == (200, False)


@pytest.mark.parametrize(
    "head", ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"], ids=["length", "chunked"]
)
@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_a_body_that_ends_too_early_is_a_cut(world, serve, request, kind, head):
    async def short(talk: Talk, seen: Seen) -> None:
        await talk.send(f"HTTP/1.1 200 OK\r\n{head}\r\n3\r\nabc\r\n")
        talk.writer.close()

    found = request.getfixturevalue(kind)(world.edge(serve(Http1Upstream(short)).url)).ask()
    assert (found.status, found.complete) == (200, False)


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_chunks_that_are_none_are_a_cut(world, serve, request, kind):
    async def babble(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcXX\r\n")
        await talk.reader.read()

    found = request.getfixturevalue(kind)(world.edge(serve(Http1Upstream(babble)).url)).ask()
    assert (found.status, found.complete) == (200, False)


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_an_http2_upstream_that_resets_a_stream(world, serve, request, kind):
    async def reset(talk: H2Talk, stream: int, seen: Seen) -> None:
        if seen.target == "/late":
            await talk.head(stream)
            await talk.data(stream, b"abc")
            await asyncio.sleep(0.02)
        talk.conn.reset_stream(stream, 2)
        await talk.flush()

    running = world.edge(serve(Http2Upstream(reset)).url, upstream={"protocol": "h2"})
    early = request.getfixturevalue(kind)(running).ask("/")
    assert (early.status, early.reason) == (502, "upstream_broken")
    late = request.getfixturevalue(kind)(running).ask("/late")
    assert (late.status, late.complete) == (200, False)


def test_an_http2_upstream_that_goes_away_is_dialled_again(world, serve, connect2):
    upstream = serve(Http2Upstream())
    running = world.edge(upstream.url, upstream={"protocol": "h2"})
    client = connect2(running)
    assert client.ask().status == 200
    world.run(upstream.drop())
    running.until(lambda: not upstream._open)
    time.sleep(0.05)
    assert client.ask().status == 200
    assert upstream.connections == 2


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_an_upstream_that_does_not_answer_is_given_up(world, serve, request, kind):
    async def never(talk: Talk, seen: Seen) -> None:
        await talk.reader.read()

    upstream = serve(Http1Upstream(never))
    running = world.edge(upstream.url, upstream={"response_timeout_s": 0.2})
    client = request.getfixturevalue(kind)(running)
    found = client.ask()
    assert (found.status, found.reason) == (504, "upstream_timeout")
    running.until(lambda: not upstream._open)


def test_an_upstream_that_does_not_accept_is_given_up(world, connect):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fill = [socket.socket() for _ in range(4)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(deaf.getsockname())
        running = world.edge(f"http://127.0.0.1:{deaf.getsockname()[1]}", upstream={"connect_timeout_s": 0.3})
        found = connect(running).ask()
        for sock in fill:
            sock.close()
    assert (found.status, found.reason) == (502, "upstream_unreachable")
