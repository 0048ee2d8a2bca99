"""Second targets: what a header names beside the request's own target is judged like it, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.decision import Decision, Obligation
from gateway.core.routes import Route
from tests.support.edge_upstreams import Http1Upstream, Http2Upstream
from tests.support.edge_world import HOST, OTHER_HOST, Ports

READ_ONLY = frozenset({"GET", "HEAD", "PROPFIND"})


class Judge(Ports):
    """Denies what a test says; remembers what was asked."""

    def __init__(self, *denied: tuple[str, str]) -> None:
        super().__init__()
        self.denied = denied
        self.asked: list[tuple[str, str]] = []

    async def decide(self, document: Mapping[str, Any]) -> Decision:
        asked = (document["request"]["method"], "/".join(document["request"]["path"]))
        self.asked.append(asked)
        return Decision("deny", ("role_missing",)) if asked in self.denied else self.decision


ROUTE = Route("svc", HOST, upstream="svc", device_required=False)
RULES = [
    ROUTE,
    replace(ROUTE, prefix=("locked",), methods=READ_ONLY, rule="/locked"),
    replace(ROUTE, prefix=("dir", "deep"), methods=READ_ONLY, rule="/dir/deep"),
    replace(ROUTE, prefix=("devices",), device_required=True, rule="/devices"),
    Route("svc2", OTHER_HOST, upstream="svc", device_required=False),
]


@pytest.fixture(params=["connect", "connect2"])
def client_of(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize(
    "value",
    [
        "/locked/x",
        "/locked",
        "/%6cocked/x",
        f"https://{HOST}/locked/x",
        f"HTTPS://{HOST.upper()}/locked/x",
        f"https://{HOST}:443/locked/x",
        "/dir",  # a tree that holds what is locked
        "/dir/",
        "/",
    ],
)
def test_a_destination_that_is_locked_is_not_written(world, upstream, client_of, method, value):
    client = client_of(world.edge(upstream.url, routes=RULES))
    found = client.ask("/open/a", method, headers=[("destination", value)])
    assert (found.status, found.reason) == (405, "method_not_allowed")
    assert upstream.received == b""


@pytest.mark.parametrize(
    "value",
    [
        f"https://{OTHER_HOST}/x",
        f"https://{HOST}:9999/x",
        f"http://{HOST}/x",
        f"https://{HOST}@evil.example/x",
        f"https://u@{HOST}/x",
        f"//{HOST}/x",
        "x",
        "",
        "/a/../locked/x",
        "/a/%2e%2e/locked/x",
        "/a/..%2flocked/x",
        "/a//b",
        "/a?b",
        "/a#b",
        "/a;b",
        "/\u00e9",
        "file:///x",
    ],
)
@pytest.mark.parametrize("method", ["COPY", "MOVE", "PUT", "GET"])
def test_a_destination_that_is_no_resource_of_the_service_is_refused(world, upstream, connect, method, value):
    found = connect(world.edge(upstream.url, routes=RULES)).ask("/a", method, headers=[("destination", value)])
    assert (found.status, found.reason) == (400, "malformed_request")
    assert upstream.received == b""


def test_two_destinations_are_refused(world, upstream, client_of):
    sent = [("destination", "/a"), ("destination", "/b")]
    assert client_of(world.edge(upstream.url, routes=RULES)).ask("/a", "COPY", headers=sent).status == 400
    assert upstream.received == b""


@pytest.mark.parametrize("name", ["x_amz_copy_source", "X-Amz.Copy-Source", "x_ms_copy_source"])
def test_a_source_has_one_spelling(world, upstream, client_of, name):
    client_of(world.edge(upstream.url)).ask("/a", "PUT", headers=[(name.lower(), "/evil"), ("x-mine", "1")])
    assert upstream.seen[0].get("x-mine") == "1"
    assert b"evil" not in upstream.received


@pytest.mark.parametrize(
    ("denied", "method", "headers"),
    [
        (("COPY", "b"), "COPY", [("destination", "/b")]),
        (("PUT", "b"), "COPY", [("destination", f"https://{HOST}/b")]),
        (("PUT", "b/c d"), "MOVE", [("destination", "/b/c%20d")]),
        (("PUT", "b"), "PATCH", [("destination", "/b")]),
        (("GET", "secret/key"), "PUT", [("x-amz-copy-source", "/secret/key")]),
        (("GET", "secret/key"), "PUT", [("X-Amz-Copy-Source", "secret/key?versionId=7")]),
        (("GET", "secret/key"), "PUT", [("x-copy-from", "/secret/key")]),
        (("GET", "secret/key"), "PUT", [("x-ms-copy-source", f"https://{HOST}/secret/key?sig=x")]),
        (("GET", "secret/key"), "PUT", [("x-goog-copy-source", "secret/%6bey")]),
    ],
)
def test_policy_is_asked_about_the_second_target(world, upstream, connect, denied, method, headers):
    found = connect(world.edge(upstream.url, ports=Judge(denied))).ask("/a", method, headers=headers)
    assert (found.status, found.reason) == (403, "role_missing")
    assert upstream.received == b""


@pytest.mark.parametrize("value", ["https://elsewhere.example/a", "secret%2fkey", "/a/../b"])
@pytest.mark.parametrize("name", ["x-amz-copy-source", "x-ms-copy-source", "x-copy-from"])
def test_a_source_that_is_no_resource_of_the_service_is_refused(world, upstream, connect, name, value):
    assert connect(world.edge(upstream.url)).ask("/a", "PUT", headers=[(name, value)]).status == 400
    assert upstream.received == b""


def test_each_rule_below_a_tree_is_asked_for(world, upstream, connect):
    judge = Judge()
    running = world.edge(upstream.url, ports=judge, routes=[ROUTE, replace(ROUTE, prefix=("a", "b"), rule="/a/b")])
    assert connect(running).ask("/a", "MOVE", headers=[("destination", "/c")]).status == 200
    assert set(judge.asked) == {("MOVE", "a"), ("MOVE", "a/b"), ("MOVE", "c"), ("PUT", "c")}


def test_a_destination_needs_the_device_that_its_rule_needs(world, upstream, connect):
    client = connect(world.edge(upstream.url, routes=RULES), device=None)
    found = client.ask("/a", "COPY", headers=[("destination", "/devices/x")])
    assert (found.status, found.reason) == (403, "device_required")


def test_the_obligations_of_every_target_are_enforced(world, upstream, connect):
    class Careful(Judge):
        async def decide(self, document: Mapping[str, Any]) -> Decision:
            plain = await super().decide(document)
            secret = document["request"]["path"][:1] == ["secret"]
            return replace(plain, obligations=(Obligation("unknown"),)) if secret else plain

    client = connect(world.edge(upstream.url, ports=Careful()))
    assert client.ask("/a", "COPY", headers=[("destination", "/b")]).status == 200
    found = client.ask("/a", "COPY", headers=[("destination", "/secret/b")])
    assert found.reason == "obligation_unsupported"


@pytest.mark.parametrize("sent", [f"https://{HOST}/b/%7ec%20d", "/b/~c%20d", f"https://{HOST}:443/b/~c%20d"])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("kind", [Http1Upstream, Http2Upstream])
def test_a_destination_is_told_in_the_services_own_terms(world, serve, connect, sent, kept, kind):
    upstream = serve(kind())
    protocol = {"protocol": "h2"} if kind is Http2Upstream else {}
    running = world.edge(upstream.url, route={"preserve_host": kept}, upstream=protocol)
    assert connect(running).ask("/a", "MOVE", headers=[("destination", sent), ("overwrite", "F")]).status == 200
    [seen] = upstream.seen
    host = HOST if kept else f"127.0.0.1:{upstream.port}"
    assert seen.get("destination") == f"http://{host}/b/~c%20d"
    assert seen.get("overwrite") == "F"


def test_a_destination_may_name_the_port_that_was_asked_for(world, upstream, connect):
    running = world.edge(upstream.url)
    client = connect(running)
    authority = f"{HOST}:{running.port}"
    for value in (f"https://{authority}/b", f"https://{HOST}/b"):
        client.send(f"COPY /a HTTP/1.1\r\nhost: {authority}\r\ndestination: {value}\r\n\r\n")
        assert client.answer().status == 200
        assert upstream.seen[-1].get("destination") == f"http://{authority}/b"


@pytest.mark.parametrize(
    "name",
    ["X-Original-URL", "X-Rewrite-URL", "X-HTTP-Path-Override", "X-Accel-Redirect", "X-Accel-Internal",
     "X_Accel_Redirect",     "X-Original-URI", "Request-URI", "X-Override-URL", "X-Sendfile", "Base-URL",
     "Unencoded-URL"],
)  # fmt: skip
def test_no_other_header_names_another_path(world, upstream, client_of, name):
    client_of(world.edge(upstream.url, routes=RULES)).ask("/open", headers=[(name.lower(), "/evil")])
    assert b"evil" not in upstream.received
    assert upstream.seen[0].target == "/open"
