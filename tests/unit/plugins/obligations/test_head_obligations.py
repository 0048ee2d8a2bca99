"""The obligations that look at heads alone."""

import pytest

from gateway.core.reasons import Refusal
from plugins.obligations import MaxBody, NoStore, ReadOnly, RequestHeaders, ResponseHeaders


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_read_only_lets_a_look_pass(method, facts):
    assert ReadOnly().request_head([("a", "b")], {}, facts(method=method)) == [("a", "b")]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPPATCH", "get"])
def test_read_only_refuses_a_change(method, facts):
    assert ReadOnly().request_head([], {}, facts(method=method)) == Refusal("read_only")


def test_read_only_refuses_a_websocket(facts):
    assert ReadOnly().request_head([], {}, facts(protocol="websocket")) == Refusal("read_only")


@pytest.mark.parametrize(("length", "passes"), [(0, True), (10, True), (11, False), (None, False)])
def test_max_body_needs_an_announced_length_within_the_limit(length, passes, facts):
    answer = MaxBody().request_head([], {"limit_bytes": 10}, facts(content_length=length))
    assert answer == ([] if passes else Refusal("body_too_large"))


def test_no_store_replaces_whatever_is_said_about_caching():
    headers = [("Cache-Control", "public"), ("expires", "x"), ("pragma", "x"), ("date", "now")]
    assert NoStore().response_head(headers, {}) == [("date", "now"), ("cache-control", "no-store")]


def test_request_headers_replace_the_clients_in_every_spelling(facts):
    headers = [("x-department", "root"), ("x_department", "root"), ("X-Department", "root"), ("accept", "*/*")]
    params = RequestHeaders().parse({"set": {"x-department": "sales"}})
    assert RequestHeaders().request_head(headers, params, facts()) == [("accept", "*/*"), ("x-department", "sales")]


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "cookie",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "x-gateway-subject",
        "x-forwarded-for",
        "x-forwarded-user",
        "forwarded",
        "x-real-ip",
        "x_department",
        "X-Department",
        "x department",
        "",
    ],
)
def test_request_headers_cannot_set_what_is_not_theirs(name):
    with pytest.raises(ValueError, match="request_headers"):
        RequestHeaders().parse({"set": {name: "x"}})


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\x00", "\u20ac", " a", 1, None, ["a"], "x" * 9000])
def test_a_header_value_is_printable_ascii(value):
    with pytest.raises(ValueError, match="request_headers"):
        RequestHeaders().parse({"set": {"x-department": value}})
    with pytest.raises(ValueError, match="response_headers"):
        ResponseHeaders().parse({"set": {"x-frame-options": value}})


def test_response_headers_harden_and_remove():
    plugin = ResponseHeaders()
    headers = [("Server", "old/1.0"), ("x-frame-options", "SAMEORIGIN"), ("content-security-policy", "img-src 'self'")]
    wanted = {"x-frame-options": "DENY", "content-security-policy": "default-src 'self'"}
    assert plugin.response_head(headers, plugin.parse({"set": wanted, "remove": ["server"]})) == [
        ("content-security-policy", "img-src 'self'"),
        ("x-frame-options", "DENY"),
        ("content-security-policy", "default-src 'self'"),
    ]


@pytest.mark.parametrize("name", ["access-control-allow-origin", "set-cookie", "location", "content-length", "x-any"])
def test_response_headers_cannot_open_anything(name):
    with pytest.raises(ValueError, match="may not set"):
        ResponseHeaders().parse({"set": {name: "x"}})


@pytest.mark.parametrize(
    "name",
    ["strict-transport-security", "content-security-policy", "content-type", "content-length", "x-gateway-decision"],
)
def test_response_headers_cannot_remove_what_protects(name):
    with pytest.raises(ValueError, match="may not remove"):
        ResponseHeaders().parse({"remove": [name]})
