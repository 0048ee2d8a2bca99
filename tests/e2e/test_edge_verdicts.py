"""From a port that fails to what the client sees: a denial with its reason, and an untouched upstream."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.decision import Decision, Obligation
from gateway.core.obligations import WholeBody
from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import Refusal
from gateway.core.routes import Route
from gateway.obligations.plan import Obligations
from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import HOST, Ports

GOOD = ("authorization", "Bearer good")


def broken(port: str, how: object) -> Ports:
    """Ports of which one raises `how`, hangs, or answers it."""

    async def wait(*_: object) -> object:
        if how == "hang":
            await asyncio.sleep(60)
        if isinstance(how, BaseException):
            raise how
        return how

    def at_once(*_: object) -> object:
        if isinstance(how, BaseException):
            raise how
        return how

    ports = Ports()
    setattr(ports, port, at_once if port in {"check", "sign", "record"} else wait)
    return ports


@pytest.mark.parametrize(
    ("port", "how", "status", "reason"),
    [
        ("check", Refusal("node_quarantined"), 503, "node_quarantined"),
        ("check", ValueError(), 500, "gateway_error"),
        ("verify", Refusal("device_revoked"), 403, "device_revoked"),
        ("verify", StoreDown(), 503, "store_down"),
        ("verify", "hang", 500, "gateway_error"),
        ("verify", "nonsense", 500, "gateway_error"),
        ("read", Refusal("token_expired"), 401, "token_expired"),
        ("read", KeyError("x"), 500, "gateway_error"),
        ("read", "hang", 503, "issuer_unavailable"),
        ("bind", Refusal("session_revoked"), 401, "session_revoked"),
        ("bind", None, 500, "gateway_error"),
        ("assess", RuntimeError(), 403, "risk_unavailable"),
        ("assess", "hang", 403, "risk_unavailable"),
        ("decide", Decision("deny", ("role_missing",)), 403, "role_missing"),
        ("decide", ValueError(), 403, "policy_error"),
        ("decide", "hang", 403, "policy_timeout"),
        ("decide", None, 403, "policy_error"),
        ("sign", RuntimeError(), 500, "gateway_error"),
        ("sign", "a\r\nx: y", 500, "gateway_error"),
        ("record", OSError(28, "No space left on device"), 503, "record_unavailable"),
    ],
)
@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_a_port_that_fails_is_a_denial_and_the_upstream_hears_nothing(
    world, upstream, request, kind, port, how, status, reason
):
    running = world.edge(upstream.url, ports=broken(port, how), pipeline={"deadline_s": 0.1})
    client = request.getfixturevalue(kind)(running)
    found = client.ask("/", "POST", headers=[GOOD], body=b"x")
    assert (found.status, found.reason) == (status, reason)
    assert upstream.received == b""
    assert upstream.connections == 0
    assert client.ask("/.gateway/health").status in {200, 500, 503}


def test_a_person_gets_a_page_and_a_program_gets_json(world, upstream, connect):
    client = connect(world.edge(upstream.url, ports=broken("decide", Decision("deny", ("role_missing",)))))
    page = client.ask(headers=[("accept", "text/html")])
    assert page.get("content-type") == "text/html; charset=utf-8"
    assert client.ask().get("content-type") == "application/problem+json"


def test_every_decision_is_recorded_once(edge, connect, connect2):
    one, two = connect(edge), connect2(edge)
    one.ask("/a?secret=1", headers=[GOOD])
    one.ask("/../x")
    two.ask("/b")
    assert [(event["effect"], event.get("path")) for event in edge.ports.events] == [
        ("allow", "/a"),
        ("deny", None),
        ("allow", "/b"),
    ]
    assert "secret" not in str(edge.ports.events)
    assert "good" not in str(edge.ports.events)


def test_a_zero_log_host_leaves_nothing_behind(world, serve, connect, connect2, capfd):
    async def sometimes(talk: Talk, seen: Seen) -> None:
        await (talk.ok() if seen.target == "/canary" else talk.send("canary\r\n\r\n"))

    route = Route("svc", HOST, upstream="svc", plane="user", device_required=False)
    running = world.edge(serve(Http1Upstream(sometimes)).url, routes=[route])
    for client in (connect(running), connect2(running)):
        assert client.ask("/canary").status == 200
        assert client.ask("/canary2").status == 502
        assert client.ask("/canary/../").status == 400
    world.run(asyncio.sleep(0))
    assert running.ports.events == []
    out, err = capfd.readouterr()
    assert "canary" not in out + err
    assert "127.0.0.1" not in out + err


# ---- obligations ----


class Shout:
    """Turns a whole body to upper case; refuses one that is quiet already."""

    kind = "shout"
    direction = "response"
    mode = "whole"

    def parse(self, params):
        return params

    def request_head(self, headers, params, facts):
        return [*headers, ("x-shout", "1")]

    def response_head(self, headers, params):
        return [*(item for item in headers if item[0] != "x-quiet"), ("x-loud", "1")]

    def open(self, params, info, context):
        return WholeBody(self.shout)

    def shout(self, body):
        if not body:
            raise ValueError
        return body.upper()


@pytest.fixture
def loud():
    """What makes a pipeline shout."""
    ports = Ports()
    ports.decision = Decision("allow", ("policy_ok",), (Obligation("shout"),))
    return {"ports": ports, "pipeline": {"obligations": Obligations([Shout()])}}


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_an_enforced_body_goes_out_changed_with_its_own_length(world, serve, request, loud, kind):
    async def chunked(talk: Talk, seen: Seen) -> None:
        assert seen.get("x-shout") == "1"
        await talk.send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\netag: x\r\nx-quiet: 1\r\n\r\n"
            "2\r\nab\r\n2\r\ncd\r\n0\r\nx: y\r\n\r\n"
        )

    client = request.getfixturevalue(kind)(world.edge(serve(Http1Upstream(chunked)).url, **loud))
    for _ in range(2):
        found = client.ask()
        assert (found.status, found.body, found.get("content-length"), found.trailers) == (200, b"ABCD", "4", [])
        assert (found.get("etag"), found.get("x-quiet"), found.get("x-loud")) == (None, None, "1")


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_a_body_that_cannot_be_enforced_never_goes_out(world, serve, request, loud, kind):
    async def empty(talk: Talk, seen: Seen) -> None:
        await talk.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: secret\r\n\r\n0\r\n\r\n")

    client = request.getfixturevalue(kind)(world.edge(serve(Http1Upstream(empty)).url, **loud))
    for _ in range(2):
        found = client.ask()
        assert (found.status, found.reason) == (500, "obligation_failed")
        assert "secret" not in str(found)


def test_an_answer_without_a_body_needs_no_enforcing(world, serve, connect, loud):
    async def bare(talk: Talk, seen: Seen) -> None:
        await talk.send(
            "HTTP/1.1 204 No\r\n\r\n" if seen.method == "GET" else "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
        )

    client = connect(world.edge(serve(Http1Upstream(bare)).url, **loud))
    assert client.ask().status == 204
    assert client.ask("/", "HEAD").status == 200


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_an_enforced_body_that_is_too_large_is_dropped(world, serve, request, loud, kind):
    async def much(talk: Talk, seen: Seen) -> None:
        await talk.ok(b"x" * (9 << 20))

    found = request.getfixturevalue(kind)(world.edge(serve(Http1Upstream(much)).url, **loud)).ask()
    assert (found.status, found.reason) == (500, "obligation_failed")


def test_an_enforced_body_of_an_http2_upstream(world, serve, connect2, loud):
    async def answer(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.head(stream, 200, [("content-length", "4")])
        await talk.data(stream, b"abcd", end=True)

    client = connect2(world.edge(serve(Http2Upstream(answer)).url, upstream={"protocol": "h2"}, **loud))
    assert client.ask().body == b"ABCD"
