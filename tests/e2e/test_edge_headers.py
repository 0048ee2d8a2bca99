"""Header hygiene: what a client may not say is gone upstream, what we say is there once, in both directions."""

from __future__ import annotations

import itertools

import pytest

from gateway.core.header_families import FAMILIES
from gateway.core.subject import Identity, Role
from tests.support.edge_upstreams import Http1Upstream, Seen, Talk
from tests.support.edge_world import HOST, Ports

OURS = [
    "X-Gateway-Subject",
    "X-Gateway-Jwt-Assertion",
    "X-Gateway-Decision",
    "X-Gateway-Anything-Else",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Client-Cert",
    "Forwarded",
    "X-Real-IP",
    "X-Original-URL",
    "X-Original-Host",
    "X-Rewrite-URL",
    "Remote-User",
    "X-Remote-User",
    "X-WebAuth-User",
    "X-Auth-Request-Email",
    "Client-Cert",
    "X-SSL-Client-DN",
    "X-Envoy-Original-Path",
]
SPELLINGS = [
    str.lower,
    str.upper,
    str.title,
    lambda name: name.replace("-", "_"),
    lambda name: name.lower().replace("-", "_", 1),
    # what hands headers over as variables reads every one of these as the same
    lambda name: name.replace("-", "."),
    lambda name: name.replace("-", "~", 1),
    lambda name: name.replace("-", "'"),
]
GOOD = ("authorization", "Bearer good")
ASSERTED = [
    *(name for family in FAMILIES for name in family.names),
    *(f"{prefix.removesuffix('-')}-user" for family in FAMILIES for prefix in family.prefixes),
]


def names(seen: Seen) -> list[str]:
    return [name.lower().replace("_", "-") for name, _ in seen.headers]


@pytest.mark.parametrize(
    "name", ["Transfer_Encoding", "Transfer.Encoding", "Content_Length", "Proxy~Authorization", "Content'Length"]
)
def test_what_frames_a_message_has_no_second_spelling(edge, upstream, connect, name):
    assert connect(edge).ask(headers=[(name, "evil"), ("x-mine", "kept")]).status == 200
    assert b"evil" not in upstream.received
    assert upstream.seen[0].get("x-mine") == "kept"


@pytest.mark.parametrize("name", OURS)
def test_no_spelling_of_ours_gets_through_http1(edge, upstream, connect, name):
    client = connect(edge)
    for spell in SPELLINGS:
        assert client.ask(headers=[(spell(name), "evil-1"), (spell(name), "evil-2"), ("x-mine", "kept")]).status == 200
    assert len(upstream.seen) == len(SPELLINGS)
    assert b"evil" not in upstream.received
    assert all(seen.get("x-mine") == "kept" for seen in upstream.seen)


@pytest.mark.parametrize("name", OURS)
def test_no_spelling_of_ours_gets_through_http2(edge, upstream, connect2, name):
    client = connect2(edge)
    for spelled in {spell(name).lower() for spell in SPELLINGS}:
        assert client.ask(headers=[(spelled, "evil-1"), (spelled, "evil-2"), ("x-mine", "kept")]).status == 200
    assert b"evil" not in upstream.received


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_nobody_speaks_as_another_proxy_would(edge, upstream, request, kind):
    client = request.getfixturevalue(kind)(edge)
    for name in ASSERTED:
        for spelled in {spell(name).lower() for spell in SPELLINGS}:
            assert client.ask(headers=[(spelled, "evil"), ("x-mine", "kept")]).status == 200
    assert b"evil" not in upstream.received
    assert all(seen.get("x-mine") == "kept" for seen in upstream.seen)


def test_a_service_strips_more_and_keeps_what_it_names(world, upstream, connect):
    route = {"strip_headers": frozenset({"x-own-user", "x-fam-*"}), "keep_headers": frozenset({"x-scope-orgid"})}
    sent = [("X_Own.User", "evil"), ("x-fam-a", "evil"), ("x_fam_b", "evil"), ("x-own", "1"), ("X-Scope-OrgID", "2")]
    connect(world.edge(upstream.url, route=route)).ask(headers=[*sent, ("x_scope_orgid", "evil"), ("x-user", "evil")])
    [seen] = upstream.seen
    assert (seen.get("x-own"), seen.get("x-scope-orgid")) == ("1", "2")
    assert b"evil" not in upstream.received


def test_another_spelling_of_what_policy_reads_does_not_pass(world, upstream, connect, connect2):
    running = world.edge(upstream.url, pipeline={"judged_headers": frozenset({"x-tenant"})})
    for client in (connect(running), connect2(running)):
        client.ask(headers=[("x-tenant", "a"), ("x_tenant", "evil"), ("x.tenant", "evil"), ("x_else", "kept")])
    assert b"evil" not in upstream.received
    assert [(seen.get("x-tenant"), seen.get("x_else")) for seen in upstream.seen] == [("a", "kept")] * 2


@pytest.mark.parametrize(
    ("keys", "sent"),
    [
        (("x,admin",), "x%2Cadmin"),
        (("a", "b"), "a,b"),
        (("a", ""), "a"),
        ((" admin", "b "), "%20admin,b%20"),
        (('"a', 'b"'), "%22a,b%22"),
        (("a%2Cb",), "a%252Cb"),
        (("IT Support",), "IT Support"),
        (("  ",), "%20%20"),
    ],
)
def test_one_role_never_looks_like_two(world, upstream, connect, keys, sent):
    class Roles(Ports):
        async def read(self, *_: object) -> Identity:
            return Identity("https://id", "u", "jwt", "s", 2e9, roles=tuple(Role(key) for key in keys))

    connect(world.edge(upstream.url, ports=Roles(), route={"identity_headers": True})).ask()
    assert upstream.seen[0].get("x-gateway-roles") == sent


def test_ours_are_there_once_and_true(edge, upstream, connect):
    client = connect(edge)
    client.ask("/p", headers=[(name, "evil") for name in OURS])
    [seen] = upstream.seen
    assert (seen.get("x-forwarded-for"), seen.get("x-forwarded-proto")) == ("127.0.0.1", "https")
    assert seen.get("x-forwarded-host") == HOST
    assert seen.get("x-gateway-decision")
    assert len(names(seen)) == len(set(names(seen)))


@pytest.mark.parametrize("name", ["X-Gateway-Decision", "x-forwarded-for", "X-Forwarded-Host"])
def test_ours_cannot_be_taken_away_by_the_connection_header(edge, upstream, connect, name):
    assert connect(edge).ask(headers=[("connection", name)]).status == 200
    assert upstream.seen[0].get(name.lower())


def test_what_the_connection_header_lists_is_for_this_hop(edge, upstream, connect):
    connect(edge).ask(headers=[("connection", "X-Hop, x-other"), ("x-hop", "secret"), ("X-Other", "secret")])
    assert b"secret" not in upstream.received


@pytest.mark.parametrize("listed", ["authorization", "Cookie", "host", "content-length", "Content-Type", "origin"])
def test_the_connection_header_cannot_take_away_what_matters(edge, upstream, connect, listed):
    found = connect(edge).ask(headers=[("connection", f"close, {listed}"), GOOD])
    assert (found.status, found.reason) == (400, "malformed_request")
    assert upstream.received == b""


def test_hop_by_hop_headers_go_no_further(edge, upstream, connect):
    hop = ["keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "http2-settings"]
    connect(edge).ask(headers=[*((name, "hop") for name in hop), ("connection", "keep-alive, te")])
    assert not set(hop) & set(names(upstream.seen[0]))
    assert b"connection" not in upstream.received.lower()


@pytest.mark.parametrize("value", ["h2c", "foo", "websocket, h2c", "TLS/1.3"])
def test_any_other_upgrade_is_ignored(edge, upstream, connect, value):
    assert connect(edge).ask(headers=[("connection", "upgrade"), ("upgrade", value)]).status == 200
    assert b"upgrade" not in upstream.received.lower()


def test_hop_by_hop_headers_of_an_answer_go_no_further(world, serve, connect):
    async def answer(talk: Talk, seen: Seen) -> None:
        await talk.ok(
            headers="connection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: x\r\n"
            "upgrade: h2c\r\nAlt-Svc: h3=1\r\nX-Gateway-Reason: policy_ok\r\nx_gateway_decision: evil\r\n"
            "X-Gateway-Decision: evil\r\nX-Kept: yes\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        )

    found = connect(world.edge(serve(Http1Upstream(answer)).url)).ask()
    kept = {name for name, _ in found.headers}
    assert kept == {"content-length", "x-kept", "set-cookie", "x-gateway-decision"}
    assert found.all("set-cookie") == ["a=1", "b=2"]
    assert "evil" not in str(found.headers)


# ---- who the client is ----


def test_a_stranger_is_not_believed_about_its_address(edge, upstream, connect):
    connect(edge).ask(headers=[("x-forwarded-for", "9.9.9.9")])
    assert upstream.seen[0].get("x-forwarded-for") == "127.0.0.1"


@pytest.mark.parametrize(
    ("sent", "believed"),
    [
        (["9.9.9.9"], "9.9.9.9"),
        (["1.1.1.1, 9.9.9.9"], "9.9.9.9"),
        (["1.1.1.1", "9.9.9.9"], "9.9.9.9"),
        (["1.1.1.1, 9.9.9.9, 127.0.0.9"], "9.9.9.9"),
        (["127.0.0.8"], "127.0.0.8"),
        (["::ffff:9.9.9.9"], "9.9.9.9"),
        ([], "127.0.0.1"),
    ],
)
def test_a_trusted_proxy_is_believed_about_the_nearest_stranger(world, upstream, connect, sent, believed):
    running = world.edge(upstream.url, trusted=["127.0.0.0/8"])
    assert connect(running).ask(headers=[("x-forwarded-for", value) for value in sent]).status == 200
    assert upstream.seen[0].get("x-forwarded-for") == believed


@pytest.mark.parametrize("sent", ["1.2.3", "nonsense", "9.9.9.9:99999999", "0x7f.1", "[::1", "9.9.9.9.9"])
def test_a_trusted_proxy_that_talks_nonsense_is_refused(world, upstream, connect, sent):
    running = world.edge(upstream.url, trusted=["127.0.0.0/8"])
    assert connect(running).ask(headers=[("x-forwarded-for", sent)]).status == 400
    assert upstream.received == b""


# ---- the identity ----


def test_the_token_is_removed_when_an_identity_was_read_from_it(edge, upstream, connect):
    assert connect(edge).ask(headers=[GOOD]).status == 200
    [seen] = upstream.seen
    assert seen.get("authorization") is None
    assert seen.get("x-gateway-jwt-assertion") == "head.body.signature"


def test_an_authorization_that_is_not_ours_goes_to_the_service(edge, upstream, connect):
    connect(edge).ask(headers=[("authorization", "Basic abc")])
    [seen] = upstream.seen
    assert (seen.get("authorization"), seen.get("x-gateway-jwt-assertion")) == ("Basic abc", None)


def test_a_route_may_keep_the_token(world, upstream, connect):
    connect(world.edge(upstream.url, route={"keep_bearer": True})).ask(headers=[GOOD])
    assert upstream.seen[0].get("authorization") == "Bearer good"


class BySession(Ports):
    async def read(self, facts: object, route: object) -> Identity:
        return Identity("https://id", "u1", "session", "s", 2e9)


@pytest.mark.parametrize("credential", ["Bearer eyJhbGciOiJub25lIn0.e30.", "Basic YTpi", "token x", "ApiKey y"])
def test_the_services_own_authorization_passes_beside_a_session(world, upstream, connect, credential):
    running = world.edge(upstream.url, ports=BySession(), route={"own_authorization": True})
    assert connect(running).ask(headers=[("authorization", credential)]).status == 200
    [seen] = upstream.seen
    assert (seen.get("authorization"), seen.get("x-gateway-jwt-assertion")) == (credential, "head.body.signature")


@pytest.mark.parametrize("changes", [{}, {"keep_bearer": True}])
def test_a_token_beside_a_session_that_nobody_looked_at_does_not_pass(world, upstream, connect, changes):
    running = world.edge(upstream.url, ports=BySession(), route=changes)
    assert connect(running).ask(headers=[("authorization", "Bearer x")]).status == 200
    assert upstream.seen[0].get("authorization") is None


def test_plain_identity_headers_cannot_be_broken_out_of(world, upstream, connect):
    class Odd(Ports):
        async def read(self, *_: object) -> Identity:
            return Identity(
                "https://id", "u\r\nx: y", "jwt", "s", 2e9, name="Åsa 100%", roles=(Role("a"), Role("b\nc"))
            )

    connect(world.edge(upstream.url, ports=Odd(), route={"identity_headers": True})).ask()
    [seen] = upstream.seen
    assert seen.get("x-gateway-subject") == "u%0D%0Ax: y"
    assert seen.get("x-gateway-name") == "%C3%85sa 100%25"
    assert seen.get("x-gateway-roles") == "a,b%0Ac"


def test_the_hosts_own_name_is_sent_on_request(world, upstream, connect):
    connect(world.edge(upstream.url, route={"preserve_host": False})).ask()
    [seen] = upstream.seen
    assert (seen.get("host"), seen.get("x-forwarded-host")) == (f"127.0.0.1:{upstream.port}", HOST)


# ---- which host is meant ----


@pytest.mark.parametrize("host", ["b.localhost", "localhost", "a.localhost.evil.example", "xa.localhost", "127.0.0.1"])
def test_another_host_than_the_server_name_is_misdirected(edge, upstream, connect, host):
    client = connect(edge)
    client.send(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")
    found = client.answer()
    assert (found.status, found.reason) == (421, "misdirected_request")
    assert upstream.received == b""


@pytest.mark.parametrize("host", ["A.LocalHost", "a.localhost:443", "a.localhost.", "A.localhost.:0443"])
def test_the_same_host_in_another_spelling_is_the_same_host(edge, upstream, connect, host):
    client = connect(edge)
    client.send(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")
    assert client.answer().status == 200
    assert upstream.seen[0].get("host") == HOST


def test_the_port_that_was_asked_for_is_told(world, upstream, connect):
    running = world.edge(upstream.url, pipeline={"own_ports": frozenset({8443})})
    for port in (8443, running.port):
        client = connect(running)
        client.send(f"GET / HTTP/1.1\r\nhost: A.localhost:{port}\r\n\r\n")
        assert client.answer().status == 200
        assert upstream.seen[-1].get("host") == f"{HOST}:{port}"


@pytest.mark.parametrize("port", ["1", "80", "8443", "65535"])
def test_a_port_that_is_not_ours_is_misdirected(edge, upstream, connect, connect2, port):
    client = connect(edge)
    client.send(f"GET / HTTP/1.1\r\nhost: {HOST}:{port}\r\n\r\n")
    found = client.answer()
    assert (found.status, found.reason) == (421, "misdirected_request")
    other = connect2(edge)
    pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", f"{HOST}:{port}"), (":path", "/")]
    found = other.answer(other.start(pseudo=pseudo))
    assert (found.status, found.reason) == (421, "misdirected_request")
    assert upstream.received == b""


def test_without_a_server_name_no_host_is_served(edge, upstream, connect):
    found = connect(edge, sni=None).ask()
    assert (found.status, found.reason) == (421, "misdirected_request")
    assert upstream.received == b""


def test_every_answer_names_its_decision_once(edge, connect):
    client = connect(edge)
    ids = [client.ask(target).get("x-gateway-decision") for target in ("/", "/", "/.gateway/none", "/")]
    assert all(ids)
    assert len(set(ids)) == len(list(itertools.chain(ids)))
