import ipaddress

import pytest

from gateway.core.canonical import admit, client_network
from gateway.core.header_names import is_ours
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RawRequest, RequestLimits

PEER = Peer("10.0.0.9", 4711, sni="a.example")
HOST = (b"Host", b"a.example")


def ask(target=b"/", method=b"GET", headers=(HOST,), *, authority=b"", version="1.1", ended=True, peer=PEER, **how):
    return admit(RawRequest(method, authority, target, tuple(headers), version, ended), peer, **how)


def reason(found):
    return found.reason if isinstance(found, Refusal) else None


def test_the_crumbs_of_a_cookie_are_one_field():
    crumbs = [(b"cookie", b"c%d=%s" % (n, b"v" * 100)) for n in range(200)]
    headers = [*crumbs, (b"x", b"y")]
    request = ask(headers=headers, authority=b"a.example", version="2")
    assert request.header_values("cookie") == ["; ".join(value.decode() for _, value in crumbs)]
    assert reason(ask(headers=crumbs * 2, authority=b"a.example", version="2")) == "headers_too_large"
    fits = [(b"cookie", b"v" * 10), (b"cookie", b"v" * 10)]  # 10 + 4 + "cookie", then 10 + "; "
    assert not reason(ask(headers=fits, authority=b"a.example", version="2", limits=RequestLimits(1, 32)))
    assert reason(ask(headers=fits, authority=b"a.example", version="2", limits=RequestLimits(1, 31)))


def test_sizes_are_bounded():
    assert reason(ask(b"/" + b"a" * 8192)) == "headers_too_large"
    assert reason(ask(headers=[HOST, (b"x", b"y" * 33_000)])) == "headers_too_large"
    assert reason(ask(headers=[HOST, *[(b"x", b"y")] * 100])) == "headers_too_large"
    small = RequestLimits(header_count=2, header_bytes=40, target_bytes=3)
    assert reason(ask(b"/abc", limits=small)) == "headers_too_large"
    assert reason(ask(headers=[HOST, (b"a", b"b"), (b"c", b"d")], limits=small)) == "headers_too_large"


# ---- methods ----


@pytest.mark.parametrize(
    "method", [b"", b"G T", b"GET\r\n", b"CONNECT", b"TRACE", b"connect", b"Track", b"A" * 65, b"G@T"]
)
def test_an_odd_method_is_refused(method):
    assert reason(ask(method=method)) == "malformed_request"


@pytest.mark.parametrize("method", [b"GET", b"PROPFIND", b"VERSION-CONTROL", b"M-SEARCH", b"get", b"A" * 64])
def test_any_token_is_admitted(method):
    assert ask(method=method).method == method.decode()


# ---- the host ----


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        (b"a.example", "a.example"),
        (b"A.Example.", "a.example"),
        (b"a.example:443", "a.example"),
        (b"a.example:8443", "a.example:8443"),
    ],
)
def test_the_host_is_canonical_and_the_port_is_kept(host, authority):
    found = ask(headers=[(b"host", host)], own_ports=frozenset({8443}))
    assert (found.host, found.authority, found.origin) == ("a.example", authority, f"https://{authority}")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [HOST, HOST],
        [(b"host", b"")],
        [(b"host", b"a.example, b")],
        [(b"host", b"a..example")],
        [(b"host", b"a.example:")],
        [(b"host", b"a.example:99999")],
        [(b"host", b"-a.example")],
        [(b"host", b"a.example-")],
        [(b"host", b"a_b.example")],
        [(b"host", b"[::1")],
        [(b"host", b"[:::]")],
    ],
)
def test_a_host_that_is_missing_doubled_or_none_is_refused(headers):
    assert reason(ask(headers=headers)) == "malformed_request"


def test_the_host_must_be_the_server_name_of_the_connection():
    assert reason(ask(headers=[(b"host", b"b.example")])) == "misdirected_request"
    assert reason(ask(peer=Peer("10.0.0.9", 1))) == "misdirected_request"
    assert ask(headers=[(b"host", b"[::1]:8443")], peer=Peer("::1", 1, local_port=8443)).authority == "[::1]:8443"
    assert ask(headers=[(b"host", b"127.0.0.1")], peer=Peer("::1", 1)).host == "127.0.0.1"


@pytest.mark.parametrize("port", [b"1", b"80", b"444", b"8444", b"65535", b"0"])
def test_a_port_that_is_not_ours_is_misdirected(port):
    how = {"peer": Peer("10.0.0.9", 4711, sni="a.example", local_port=8443), "own_ports": frozenset({9443})}
    assert reason(ask(headers=[(b"host", b"a.example:" + port)], **how)) == "misdirected_request"
    assert reason(ask(authority=b"a.example:" + port, headers=(), version="2", **how)) == "misdirected_request"
    for ours in (b"a.example", b"a.example:443", b"a.example:8443", b"a.example:9443"):
        assert ask(headers=[(b"host", ours)], **how).host == "a.example"


def test_http2_needs_no_host_but_both_must_agree():
    assert ask(authority=b"a.example", headers=(), version="2").host == "a.example"
    assert ask(authority=b"a.example", version="2").host == "a.example"
    assert ask(headers=[HOST], version="2").host == "a.example"
    assert reason(ask(authority=b"a.example:1", version="2")) == "malformed_request"
    assert reason(ask(headers=(), version="2")) == "malformed_request"


# ---- fields ----


@pytest.mark.parametrize(
    "field",
    [
        (b"", b"x"),
        (b"a b", b"x"),
        (b"a:", b"x"),
        (b"\xff", b"x"),
        (b"a", b"x\0"),
        (b"a", b"x\r\ny: z"),
        (b"a", b"\x7f"),
    ],
)
def test_a_field_that_is_none_is_refused(field):
    assert reason(ask(headers=[HOST, field])) == "malformed_request"


@pytest.mark.parametrize(
    "name",
    ["x-gateway-subject", "X-Gateway-x", "x_gateway_email", "X-FORWARDED-FOR", "x-forwarded_host", "forwarded",
     "x-real-ip", "X_Real_IP", "X.Real.IP", "x-gateway.subject", "Content_Length",
     "x-original-url", "x-rewrite-url", "proxy"],
)  # fmt: skip
def test_every_spelling_of_ours_is_ours_and_gone(name):
    assert is_ours(name.lower())
    found = ask(headers=[HOST, (name.encode(), b"evil"), (b"X-Mine", b" kept\t")])
    assert found.headers == (("x-mine", "kept"),)


@pytest.mark.parametrize(
    "name",
    ["Client-IP", "True_Client.IP", "CF-Connecting-IP", "Cf-Access-Jwt-Assertion", "X-Goog-IAP-JWT-Assertion",
     "SM_USER", "iv-user", "$WSRU", "OIDC_CLAIM_email", "X-Authentik-Username", "X-Pomerium-Claim-Email",
     "Tailscale-User", "X-Amzn-Oidc-Data", "X-MS-CLIENT-PRINCIPAL-NAME",
     "Remote-Groups", "X-User", "WL-Proxy-Client-IP", "X-Consumer-Id",
     "l5d-client-id", "SSL_CLIENT_VERIFY", "X-SSL-Cert", "Impersonate-User",
     "X-Accel-Redirect", "X-HTTP-Path-Override"],
)  # fmt: skip
def test_what_other_proxies_assert_is_kept_apart(name):
    found = ask(headers=[HOST, (name.encode(), b"evil"), (b"x-mine", b"1")])
    assert found.headers == (("x-mine", "1"),)
    assert found.asserted == ((name.lower(), "evil"),) or is_ours(name.lower())
    assert "evil" not in str(found.document())


@pytest.mark.parametrize(
    "name",
    ["accept-language", "x-api-key", "x-csrf-token", "x-request-id", "traceparent", "dav", "x-auth-token", "x-ms-date",
     "x-amz-date", "x-goog-meta-a", "x-zitadel-orgid", "x-gitlab-token", "x-grafana-org-id", "x-client-data",
     "git-protocol",
     "docker-content-digest", "x-frame-options", "priority", "from", "via", "destination", "depth", "if", "lock-token"],
)  # fmt: skip
def test_what_clients_say_for_themselves_passes(name):
    assert ask(headers=[HOST, (name.encode(), b"1")]).headers == ((name, "1"),)


@pytest.mark.parametrize("name", ["X_Tenant", "x.tenant", "X~Tenant", "x'TENANT"])
def test_another_spelling_of_what_policy_reads_is_gone(name):
    fields = [HOST, (b"X-Tenant", b"mine"), (name.encode(), b"evil"), (b"x_other", b"1")]
    found = ask(headers=fields, judged_headers=frozenset({"x-tenant"}))
    assert found.headers == (("x-tenant", "mine"), ("x_other", "1"))
    assert ask(headers=fields, judged_headers=None).headers == (("x-tenant", "mine"),)


def test_a_policy_that_reads_an_underscore_reads_that_spelling():
    fields = [HOST, (b"X-Tenant", b"evil"), (b"x_tenant", b"mine")]
    assert ask(headers=fields, judged_headers=frozenset({"x_tenant"})).headers == (("x_tenant", "mine"),)


@pytest.mark.parametrize("name", ["Content_Encoding", "Sec_Fetch_Site", "User.Agent", "if_none_match"])
def test_what_the_gateway_reads_has_no_second_spelling(name):
    assert ask(headers=[HOST, (name.encode(), b"evil")]).headers == ()


@pytest.mark.parametrize(
    "name",
    ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_HTTP_Method.Override", "HTTP-Method-Override",
     "X-Method", "X-HTTP-Verb", "X-HTTP-Verb-Override", "X-Rewrite-Method"],
)  # fmt: skip
def test_another_method_than_the_judged_one_is_refused(name):
    assert reason(ask(method=b"POST", headers=[HOST, (name.encode(), b"DELETE")])) == "malformed_request"
    assert ask(method=b"POST", headers=[HOST, (name.encode(), b"post")]).headers == ()


@pytest.mark.parametrize("name", ["x-gatewa", "gateway-subject", "x-forward", "host-x", "accept"])
def test_others_are_not_ours(name):
    assert not is_ours(name)


def test_hop_by_hop_fields_and_what_they_list_are_gone():
    hop = [(b"Connection", b"x-a, close"), (b"x-a", b"1"), (b"TE", b"gzip"), (b"Keep-Alive", b"5"), (b"x-b", b"2")]
    assert ask(headers=[HOST, *hop]).headers == (("x-b", "2"),)


@pytest.mark.parametrize("listed", [b"Authorization", b"cookie", b"host", b"content-length", b"close, dpop"])
def test_a_connection_option_cannot_take_away_what_is_judged(listed):
    assert reason(ask(headers=[HOST, (b"connection", listed)])) == "malformed_request"


def test_cookie_crumbs_are_one_cookie():
    found = ask(headers=[HOST, (b"cookie", b"a=1"), (b"x", b"y"), (b"Cookie", b"b=2")])
    assert found.header_values("cookie") == ["a=1; b=2"]


def test_only_100_continue_can_be_expected():
    assert ask(headers=[HOST, (b"expect", b"100-Continue")]).header("expect") == "100-Continue"
    assert reason(ask(headers=[HOST, (b"expect", b"else")])) == "malformed_request"


# ---- framing ----


@pytest.mark.parametrize(
    ("headers", "version", "ended", "length"),
    [
        ([], "1.1", True, 0),
        ([(b"content-length", b"5")], "1.1", False, 5),
        ([(b"transfer-encoding", b"Chunked")], "1.1", False, None),
        ([], "2", True, 0),
        ([], "2", False, None),
        ([(b"content-length", b"5")], "2", False, 5),
        ([(b"content-length", b"0")], "2", True, 0),
    ],
)
def test_a_body_has_one_length(headers, version, ended, length):
    assert ask(headers=[HOST, *headers], version=version, ended=ended).content_length == length


@pytest.mark.parametrize(
    ("headers", "version", "ended"),
    [
        ([(b"content-length", b"5"), (b"content-length", b"5")], "1.1", False),
        ([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], "1.1", False),
        ([(b"content-length", b"05")], "1.1", False),
        ([(b"content-length", b"5,5")], "1.1", False),
        ([(b"content-length", b"")], "1.1", False),
        ([(b"transfer-encoding", b"gzip, chunked")], "1.1", False),
        ([(b"transfer-encoding", b"chunked")] * 2, "1.1", False),
        ([(b"transfer-encoding", b"chunked")], "2", False),
        ([(b"connection", b"close")], "2", True),
        ([(b"upgrade", b"websocket")], "2", True),
        ([(b"content-length", b"5")], "2", True),
    ],
)
def test_a_body_with_two_lengths_is_refused(headers, version, ended):
    assert reason(ask(headers=[HOST, *headers], version=version, ended=ended)) == "malformed_request"


# ---- protocols ----

SOCKET = [HOST, (b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"WebSocket"), (b"sec-websocket-key", b"x"),
          (b"sec-websocket-version", b"13")]  # fmt: skip


def test_the_protocol_is_known():
    assert ask(headers=SOCKET).protocol == "websocket"
    assert ask(headers=[HOST, (b"content-type", b"application/grpc+proto")], version="2").protocol == "grpc"
    assert ask(headers=[HOST, (b"content-type", b"application/grpc")], version="2").protocol == "grpc"
    for kind, version in (
        (b"application/grpc-web+proto", "2"),
        (b"application/grpcx", "2"),
        (b"application/grpc", "1.1"),
    ):
        assert ask(headers=[HOST, (b"content-type", kind)], version=version).protocol != "grpc"
    assert ask(version="2").protocol == "h2"
    assert ask().protocol == "http/1.1"
    assert ask(headers=[HOST, (b"upgrade", b"websocket")]).protocol == "http/1.1"


@pytest.mark.parametrize("missing", [3, 4])
def test_a_websocket_handshake_must_be_whole(missing):
    assert reason(ask(headers=[field for n, field in enumerate(SOCKET) if n != missing])) == "malformed_request"
    assert reason(ask(headers=SOCKET, method=b"POST")) == "malformed_request"


# ---- the client's address ----


@pytest.mark.parametrize(
    ("ip", "sent", "trusted", "client"),
    [
        ("10.0.0.9", [], [], "10.0.0.9"),
        ("10.0.0.9", [b"9.9.9.9"], [], "10.0.0.9"),
        ("10.0.0.9", [b"9.9.9.9"], ["10.0.0.0/8"], "9.9.9.9"),
        ("10.0.0.9", [b"1.1.1.1, 9.9.9.9, 10.1.1.1"], ["10.0.0.0/8"], "9.9.9.9"),
        ("10.0.0.9", [b"1.1.1.1", b"9.9.9.9"], ["10.0.0.0/8"], "9.9.9.9"),
        ("10.0.0.9", [b"10.0.0.1, 10.0.0.2"], ["10.0.0.0/8"], "10.0.0.1"),
        ("::ffff:10.0.0.9", [b"9.9.9.9"], ["10.0.0.0/8"], "9.9.9.9"),
        ("fe80::1%eth0", [], [], "fe80::1"),
        ("10.0.0.9", [b"2001:DB8::1"], ["10.0.0.0/8"], "2001:db8::1"),
    ],
)
def test_the_client_is_the_nearest_stranger(ip, sent, trusted, client):
    networks = [ipaddress.ip_network(network) for network in trusted]
    headers = [HOST, *((b"x-forwarded-for", value) for value in sent)]
    found = ask(headers=headers, peer=Peer(ip, 1, sni="a.example"), trusted_proxies=networks)
    assert found.client_ip == client


def test_nonsense_from_a_trusted_proxy_is_refused():
    networks = [ipaddress.ip_network("10.0.0.0/8")]
    headers = [HOST, (b"x-forwarded-for", b"nonsense")]
    assert reason(ask(headers=headers, trusted_proxies=networks)) == "malformed_request"


# ---- what the facts say ----


def test_policy_sees_no_credential():
    secret = [(name, b"secret") for name in (b"authorization", b"cookie", b"dpop", b"x-api-key")]
    document = ask(b"/a/b?c=d&c=e", headers=[HOST, (b"accept", b"x"), (b"accept", b"y"), *secret]).document()
    assert document == {
        "method": "GET",
        "host": "a.example",
        "path": ["a", "b"],
        "query": {"c": ["d", "e"]},
        "headers": {"accept": "x, y"},
        "protocol": "http/1.1",
    }


UPGRADE = [
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-key", b"x"),
    (b"sec-websocket-version", b"13"),
]


@pytest.mark.parametrize(
    ("method", "headers", "wants"),
    [
        (b"GET", [(b"accept", b"text/html,*/*")], True),
        (b"HEAD", [(b"accept", b"text/html")], True),
        (b"POST", [(b"accept", b"text/html")], False),
        # a program that takes HTML as well
        (b"GET", [(b"accept", b"text/html, */*; q=0.01"), (b"x-requested-with", b"XMLHttpRequest")], False),
        (b"GET", [(b"accept", b"application/json, text/html;q=0")], False),
        (b"GET", [(b"accept", b"application/json, text/html;q=0.1")], False),
        (b"GET", [(b"accept", b"text/htmlx")], False),
        (b"GET", [(b"accept", b"text/html"), *UPGRADE], False),
        (b"GET", [(b"sec-fetch-mode", b"navigate"), *UPGRADE], False),
        (b"GET", [(b"accept", b"application/json")], False),
        (b"GET", [], False),
        (b"POST", [(b"sec-fetch-mode", b"navigate")], True),
        (b"GET", [(b"sec-fetch-mode", b"cors"), (b"accept", b"text/html")], False),
    ],
)
def test_a_page_is_for_a_person(method, headers, wants):
    assert ask(method=method, headers=[HOST, *headers]).wants_page is wants


def test_a_header_is_found_by_its_lower_case_name():
    found = ask(headers=[HOST, (b"X-A", b"1"), (b"x-a", b"2")])
    assert (found.header("x-a"), found.header_values("x-a"), found.header("x-b")) == ("1", ["1", "2"], None)


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(ip, network):
    assert client_network(ip) == network
