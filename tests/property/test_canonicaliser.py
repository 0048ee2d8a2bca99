"""The canonicaliser: it answers facts or a documented refusal, and its answer is its own fixed point."""

from __future__ import annotations

import ipaddress
import string

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.canonical import admit
from gateway.core.header_names import HOP_BY_HOP, is_ours
from gateway.core.reasons import REASONS, Refusal
from gateway.core.request import Peer, RawRequest, RequestFacts

REFUSALS = {"malformed_request", "headers_too_large", "misdirected_request"}
NAMES = [
    b"Host", b"host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"TE", b"Cookie",
    b"X-Forwarded-For", b"x_forwarded_for", b"X-Gateway-Subject", b"Forwarded", b"Accept", b"x-a", b"Authorization",
    b"Content-Type", b"sec-websocket-key", b"sec-websocket-version", b"Keep-Alive",
]  # fmt: skip
VALUES = [
    b"a.example", b"A.EXAMPLE:443", b"a.example:8443", b"b.example", b"0", b"5", b"5, 5", b"chunked", b"gzip, chunked",
    b"close", b"upgrade", b"x-a, keep-alive", b"websocket", b"100-continue", b"trailers", b"1.2.3.4", b"a=1", b"",
    b"application/grpc", b"13", b"authorization", b"10.0.0.1, 9.9.9.9", b"text/html",
]  # fmt: skip
PIECES = [
    b"/", b"/", b"a", b"b", b".", b"..", b"%2e", b"%2E", b"%2f", b"%5c", b"%25", b"%252e", b"%32", b"%65",
    b"%c3%a9", b"%C0",
    b"%ef%bc%8e", b";", b"//", b"%00", b"%20", b"~", b"%7e", b"%",
    b"?", b"&", b"=", b"#", b"\\", b"x=1", b"+", b"*", b" ",
]  # fmt: skip

names = st.sampled_from(NAMES) | st.binary(max_size=12)
values = st.sampled_from(VALUES) | st.binary(max_size=24)
fields = st.lists(st.tuples(names, values), max_size=8)
targets = st.builds(bytes.__add__, st.just(b"/"), st.lists(st.sampled_from(PIECES), max_size=10).map(b"".join))
peers = st.builds(
    Peer,
    st.sampled_from(["10.0.0.1", "9.9.9.9", "::1", "::ffff:10.0.0.1", "fe80::1%eth0", ""]) | st.text(max_size=8),
    st.integers(0, 65_535),
    sni=st.sampled_from(["a.example", "A.example.", None]) | st.text(max_size=8),
)
TRUSTED = [ipaddress.ip_network("10.0.0.0/8")]


def again(facts: RequestFacts, version: str) -> RawRequest:
    """The request as it is forwarded, read once more."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in (*facts.headers, *facts.asserted)]
    if facts.content_length is None and version == "1.1":
        headers.append((b"transfer-encoding", b"chunked"))
    elif facts.content_length:
        headers.append((b"content-length", b"%d" % facts.content_length))
    if facts.protocol == "websocket":
        headers += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    return RawRequest(
        facts.method.encode(),
        facts.authority.encode(),
        facts.target.encode("ascii"),
        [(b"host", facts.authority.encode()), *headers],
        version,
        facts.content_length == 0,
    )


@given(
    st.binary(max_size=12) | st.sampled_from([b"GET", b"POST"]),
    st.sampled_from([b"", b"a.example", b"a.example:8443"]) | st.binary(max_size=12),
    targets | st.binary(max_size=40),
    fields,
    st.sampled_from(["1.1", "2"]),
    st.booleans(),
    peers,
)
@example(b"GET", b"", b"", [(b"host", b"a.example")], "1.1", True, Peer("::1", 1, sni="a.example"))
def test_it_answers_facts_or_a_documented_refusal_and_never_raises(
    method: bytes,
    authority: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    version: str,
    ended: bool,
    peer: Peer,
) -> None:
    found = admit(RawRequest(method, authority, target, headers, version, ended), peer, trusted_proxies=TRUSTED)
    if isinstance(found, Refusal):
        assert found.reason in REFUSALS & REASONS.keys()
    else:
        assert isinstance(found, RequestFacts)


@given(
    targets,
    st.lists(st.tuples(st.sampled_from(NAMES[2:]), st.sampled_from(VALUES)), max_size=6),
    st.sampled_from(["1.1", "2"]),
    st.booleans(),
)
@example(b"/%25%32%65", [], "1.1", True)
@example(b"/%25%32%66", [], "1.1", True)
@example(b"/a/%2%65", [], "1.1", True)
def test_its_answer_is_its_own_fixed_point(
    target: bytes, headers: list[tuple[bytes, bytes]], version: str, ended: bool
) -> None:
    peer = Peer("9.9.9.9", 1, sni="a.example")
    found = admit(RawRequest(b"GET", b"", target, [(b"host", b"a.example"), *headers], version, ended), peer)
    if isinstance(found, RequestFacts):
        assert admit(again(found, version), peer) == found


@given(targets, fields)
def test_what_is_admitted_has_one_reading(target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    peer = Peer("9.9.9.9", 1, sni="a.example")
    found = admit(RawRequest(b"GET", b"", target, [(b"host", b"a.example"), *headers], "1.1"), peer)
    if isinstance(found, Refusal):
        return
    assert found.path.startswith("/")
    assert "//" not in found.path
    assert not {".", "..", ""} & set(found.segments)
    assert all("/" not in segment and "\\" not in segment for segment in found.segments)
    assert set(found.path) <= set(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@%/")
    assert len([part for part in found.path.split("/") if part]) == len(found.segments)
    for name, value in found.headers:
        assert name == name.lower()
        assert not is_ours(name)
        assert name not in HOP_BY_HOP | {"host", "content-length"}
        assert not set(value) & set("\r\n\0")


@given(
    st.lists(st.sampled_from(["a", "b c", "\u00e9", "..a", "x;y", "%", "\u4e2d", "~", ".b"]), min_size=1, max_size=5)
)
def test_a_plain_name_survives_however_much_of_it_is_escaped(segments: list[str]) -> None:
    peer = Peer("9.9.9.9", 1, sni="a.example")
    escaped = "/" + "/".join("".join(f"%{byte:02x}" for byte in segment.encode()) for segment in segments)
    found = admit(RawRequest(b"GET", b"", escaped.encode(), [(b"host", b"a.example")], "1.1"), peer)
    assert isinstance(found, RequestFacts)
    assert found.segments == tuple(segments)
