"""An upstream's addresses, its pool and the request that is sent; tests/e2e/test_edge_upstreams.py connects."""

from __future__ import annotations

import time

import pytest

from gateway import config
from gateway.core.canonical import admit
from gateway.core.request import Peer, RawRequest, RequestFacts
from gateway.core.routes import Route
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.obligations.plan import NO_PLAN
from gateway.pipeline.headers import Forward

PEER = Peer("10.0.0.9", 1, sni="a.example", local_port=8443)
ONE, TWO = ("one.internal", 80), ("two.internal", 8080)


def upstream(*urls, **settings):
    return UpstreamPool(
        "svc", config.Upstream(urls=urls or ("http://one.internal", "http://two.internal:8080"), **settings)
    )


class Leg:
    """What the pool knows of a connection."""

    def __init__(self, address, *, usable=True):
        self.address, self.usable, self.aborted = address, usable, False

    def abort(self):
        self.aborted = True


def test_addresses_have_their_schemes_port():
    assert upstream().addresses == [ONE, TWO]
    made = upstream("https://one.internal", "https://[::1]:8443")
    assert made.addresses == [("one.internal", 443), ("::1", 8443)]
    assert made.tls
    assert made.authority[("::1", 8443)] == "[::1]:8443"


def test_addresses_of_two_kinds_are_refused():
    with pytest.raises(ValueError, match="mix http and https"):
        upstream("http://one.internal", "https://two.internal")


def test_healthy_addresses_take_turns():
    made = upstream()
    assert [next(iter(made.candidates())) for _ in range(4)] == [TWO, ONE, TWO, ONE]


def test_a_failed_address_comes_last_until_it_has_rested(monkeypatch):
    made = upstream()
    made.failed(ONE)
    assert made.healthy == 1
    assert [list(made.candidates()) for _ in range(2)] == [[TWO, ONE]] * 2
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert made.healthy == 2
    assert {next(iter(made.candidates())) for _ in range(2)} == {ONE, TWO}


def test_with_none_healthy_all_are_tried():
    made = upstream()
    made.failed(ONE)
    made.failed(TWO)
    assert sorted(made.candidates()) == [ONE, TWO]


def test_an_only_address_is_always_tried():
    made = upstream("http://one.internal")
    made.failed(ONE)
    assert list(made.candidates()) == [ONE]


def test_the_pool_gives_the_youngest_good_connection_of_an_address():
    made = upstream()
    old, young, other, dead = Leg(ONE), Leg(ONE), Leg(TWO), Leg(ONE, usable=False)
    for leg in (old, young, other, dead):
        made.give(leg)
    assert made.take(ONE) is young
    assert dead.aborted
    assert made.take(ONE) is old
    assert made.take(ONE) is None
    assert made.take(TWO) is other


def test_the_pool_is_bounded_and_its_connections_age(monkeypatch):
    made = upstream()
    legs = [Leg(ONE) for _ in range(70)]
    for leg in legs:
        made.give(leg)
    assert [leg.aborted for leg in legs] == [True] * 6 + [False] * 64
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert made.take(ONE) is None
    assert all(leg.aborted for leg in legs)


def test_pruning_closes_what_is_old_or_dead(monkeypatch):
    made = upstream()
    dead, fresh = Leg(ONE, usable=False), Leg(ONE)
    made.give(dead)
    made.give(fresh)
    made.prune()
    assert (dead.aborted, fresh.aborted) == (True, False)
    made.close()
    assert fresh.aborted
    late = Leg(ONE)
    made.give(late)
    assert late.aborted


def test_a_name_is_verified_only_with_tls():
    assert upstream(server_name="x.internal").server_name is None
    assert upstream("https://one.internal", server_name="x.internal").server_name == "x.internal"
    assert upstream("https://one.internal").server_name is None


def forwarded(made, headers=(), *, target=b"/a?b=c", method=b"GET", version="1.1", ended=True, **route):
    raw = RawRequest(method, b"", target, [(b"host", b"a.example:8443"), *headers], version, ended)
    facts = admit(raw, PEER)
    assert isinstance(facts, RequestFacts)
    verdict = Forward("id", facts, Route("svc", "a.example", upstream="svc", **route), list(facts.headers), NO_PLAN)
    return made.request(verdict, body_length=0 if ended else facts.content_length)


def fields(request):
    return [(name.decode(), value.decode("latin-1")) for name, value in request.headers.fields]


def test_a_request_for_http1():
    request = forwarded(upstream(), [(b"X-A", b"\xe9"), (b"x-a", b"2")])
    assert (request.data.method, request.data.path, request.data.http_version) == (b"GET", b"/a?b=c", b"HTTP/1.1")
    assert fields(request) == [("host", "a.example:8443"), ("x-a", "\u00e9"), ("x-a", "2")]


def test_a_request_for_http2():
    request = forwarded(upstream(protocol="h2"), [(b"te", b"trailers")])
    assert (request.data.authority, request.data.scheme) == (b"a.example:8443", b"http")
    assert fields(request) == []


def test_grpc_is_told_that_trailers_are_welcome():
    request = forwarded(upstream(protocol="h2"), [(b"content-type", b"application/grpc")], version="2", method=b"POST")
    assert ("te", "trailers") in fields(request)


def test_the_upstreams_own_name_where_the_route_wants_it():
    assert fields(forwarded(upstream(), preserve_host=False))[0] == ("host", "one.internal")


@pytest.mark.parametrize(
    ("method", "headers", "version", "ended", "framing"),
    [
        (b"GET", [], "1.1", True, []),
        (b"POST", [], "1.1", True, [("content-length", "0")]),
        (b"DELETE", [(b"content-length", b"0")], "1.1", True, []),
        (b"POST", [(b"content-length", b"5")], "1.1", False, [("content-length", "5")]),
        (b"POST", [(b"transfer-encoding", b"chunked")], "1.1", False, [("transfer-encoding", "chunked")]),
        (b"POST", [], "2", False, [("transfer-encoding", "chunked")]),
        (b"POST", [], "2", True, [("content-length", "0")]),
    ],
)
def test_the_body_is_framed_anew(method, headers, version, ended, framing):
    assert fields(forwarded(upstream(), headers, method=method, version=version, ended=ended))[1:] == framing


@pytest.mark.parametrize(
    ("body_length", "framing"),
    [(7, [("content-length", "7")]), (0, [("content-length", "0")]), (None, [("transfer-encoding", "chunked")])],
)
def test_the_framing_is_that_of_the_body_that_is_sent_and_not_the_clients(body_length, framing):
    raw = RawRequest(b"POST", b"", b"/", [(b"host", b"a.example"), (b"content-length", b"5")], "1.1")
    facts = admit(raw, PEER)
    assert isinstance(facts, RequestFacts)
    verdict = Forward("id", facts, Route("svc", "a.example", upstream="svc"), list(facts.headers), NO_PLAN)
    assert fields(upstream().request(verdict, body_length=body_length))[1:] == framing
    sent = fields(upstream(protocol="h2").request(verdict, body_length=body_length))
    assert sent == [field for field in framing if field[0] == "content-length"]


def test_a_websocket_handshake_is_passed_on():
    handshake = [
        (b"connection", b"keep-alive, Upgrade"),
        (b"upgrade", b"WebSocket"),
        (b"sec-websocket-key", b"x"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
    ]
    sent = fields(forwarded(upstream(), handshake))
    assert sent[-2:] == [("connection", "Upgrade"), ("upgrade", "websocket")]
    assert "sec-websocket-extensions" not in dict(sent)


async def test_without_a_health_path_nobody_is_asked():
    assert await upstream().watch() is None
