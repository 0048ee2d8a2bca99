"""The smuggling suite: bytes that two parsers could read in two ways get 400, and the upstream sees nothing at all."""

from __future__ import annotations

import pytest

from tests.support.edge_world import HOST

HEAD = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n"
POST = f"POST / HTTP/1.1\r\nHost: {HOST}\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"

FRAMING = [
    # two lengths, or a length that is none
    POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    POST + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    POST + "Content-Length: 5, 5\r\n\r\nhello",
    POST + "Content-Length: 5, 6\r\n\r\nhello",
    POST + "Content-Length: +5\r\n\r\nhello",
    POST + "Content-Length: -5\r\n\r\nhello",
    POST + "Content-Length: 0x5\r\n\r\nhello",
    POST + "Content-Length: 05\r\n\r\nhello",
    POST + "Content-Length: 5 \x0b\r\n\r\nhello",
    POST + "Content-Length: 5 5\r\n\r\nhello",
    POST + "Content-Length: \r\n\r\nhello",
    POST + "Content-Length: \u0665\r\n\r\nhello".encode().decode("latin-1"),
    POST + "Content-Length: 99999999999999999999999\r\n\r\nhello",
    # other codings, and chunked in other spellings
    POST + "Transfer-Encoding: identity\r\n\r\n",
    POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    POST + 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    POST + "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding: \r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    POST + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    POST + " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + "X: y\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    POST + "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + "Connection: content-length\r\nContent-Length: 5\r\n\r\nhello",
]
CHUNKS = [
    "0x5\r\nhello\r\n0\r\n\r\n",
    "-1\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n",
    "\r\n5\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhelloXX0\r\n\r\n",
    "5\r\nhelloworld\r\n0\r\n\r\n",
    "G\r\nhello\r\n0\r\n\r\n",
    "5_0\r\nhello\r\n0\r\n\r\n",
    "00000000000000005\r\nhello\r\n0\r\n\r\n",
    "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5;\r\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    '5;a="\r\nhello\r\n0\r\n\r\n',
    "5,5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0;x=y\r\n\r\n",
    "0\r\nX: y\n\nGET /evil HTTP/1.1\r\nHost: a.localhost\r\n\r\n",
    "0\r\n X: y\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\r\nno colon\r\n\r\n",
    "0\r\n" + "X: " + "y" * 9000 + "\r\n\r\n",
    "1" * 300,
]
LINES = [
    # the request line
    f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n",
    f"GET / HTTP/1.2\r\nHost: {HOST}\r\n\r\n",
    f"GET / HTTP/2.0\r\nHost: {HOST}\r\n\r\n",
    f"GET / HTTP/11\r\nHost: {HOST}\r\n\r\n",
    f"GET / http/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET / HTTP/1.1 \r\nHost: {HOST}\r\n\r\n",
    f"GET /\r\nHost: {HOST}\r\n\r\n",
    "GET /\r\n\r\n",
    "GET /\n",
    f"{'A' * 65} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"G@T / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"connect / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"Track / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET  / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET /  HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET\t/\tHTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f" GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET /a b HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"CONNECT / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"TRACE / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    # the target
    f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET https://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET //{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET * HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET ? HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET a HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET /#a HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET /\x7f HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    f"GET /\xff HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
    # the header section
    HEAD + "X: a\nb\r\n\r\n",
    HEAD + "X: a\rb\r\n\r\n",
    HEAD + "X: a\0b\r\n\r\n",
    HEAD + "X: a\x01b\r\n\r\n",
    HEAD + "X: a\r\n folded\r\n\r\n",
    HEAD + "X: a\r\n\tfolded\r\n\r\n",
    HEAD + "X : a\r\n\r\n",
    HEAD + "X\t: a\r\n\r\n",
    HEAD + ": a\r\n\r\n",
    HEAD + "X\r\n\r\n",
    HEAD + "X Y: a\r\n\r\n",
    HEAD + "X\0Y: a\r\n\r\n",
    HEAD + "X(Y): a\r\n\r\n",
    HEAD + "Xé: a\r\n\r\n",
    HEAD + "X: y\n\r\n\r\n",
    HEAD.replace("\r\n", "\n") + "\n",
    HEAD.replace("\r\n", "\r") + "\r\r\n\r\n",
    f"GET / HTTP/1.1\nHost: {HOST}\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: b.localhost\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHOST : x\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {HOST}, b.localhost\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: user@{HOST}\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {HOST}/\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {HOST}:99999\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {HOST}:\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {HOST}:8o\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: {HOST}\\@b.localhost\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a%2elocalhost\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a..localhost\r\n\r\n",
]
PATHS = [
    # servlet containers cut path parameters off before they look for the path
    "/admin;x/secret",
    "/admin;",
    "/;x",
    "/admin%3Bx/secret",
    "/admin%3bx/secret",
    "/a/../b",
    "/..",
    "/../",
    "/a/..",
    "/.",
    "/a/./b",
    "/a/.",
    "/./",
    "/...;/../",
    "/a/%2e%2e/b",
    "/a/%2E%2E/b",
    "/a/%2e./b",
    "/a/.%2e/b",
    "/a/%2e/b",
    "/%2e",
    "/a/..;/b",
    "/a/..;x=1/b",
    "/a/.;/b",
    "/a/%2e%2e;/b",
    "/a/..%3b/b",
    "/a/..%20/b",
    "/a/%20../b",
    "/a/..%00/b",
    "/a/%252e%252e/b",
    "/a/%252e/b",
    "/a%252fb",
    "/a%255cb",
    "/a%25252fb",
    "/a%252500",
    "/%25%32%65",
    "/a%2fb",
    "/a%2Fb",
    "/a%5cb",
    "/a%5Cb",
    "/a\\b",
    "/a/..\\b",
    "/a%00b",
    "/a%0ab",
    "/a%0d%0ab",
    "/a%09b",
    "/a%7fb",
    "//",
    "//a",
    "/a//b",
    "/a//",
    "///",
    "/%2f",
    "/a/%c0%ae%c0%ae/b",
    "/a%c0%afb",
    "/a%e0%80%afb",
    "/a/%e0%80%ae/b",
    "/a%f0%80%80%afb",
    "/a%c1%9cb",
    "/a/%ef%bc%8e%ef%bc%8e/b",
    "/a/%e2%80%a5/b",
    "/a/%ef%bc%8e./b",
    "/a%ef%bc%8fb",
    "/a%ef%bc%bcb",
    "/a/%e2%80%a4/b",
    "/a%",
    "/a%2",
    "/a%zz",
    "/a%u002f",
    "/a%u2215",
    "/%ed%a0%80",
    "/a{b}",
    '/a"b',
    "/a<b>",
    "/a`b",
    "/a?b#c",
    "/a?\x7f",
]


def refused(client, upstream) -> None:
    found = client.answer()
    assert (found.status, found.reason) == (400, "malformed_request")
    assert upstream.received == b""


@pytest.mark.parametrize("raw", FRAMING)
def test_framing_that_has_two_readings_is_refused(edge, upstream, connect, raw):
    client = connect(edge)
    client.send(raw)
    refused(client, upstream)
    assert client.closed()


@pytest.mark.parametrize("chunks", CHUNKS)
def test_chunks_that_have_two_readings_are_refused(edge, upstream, connect, chunks):
    client = connect(edge)
    client.send(CHUNKED + chunks)
    refused(client, upstream)
    assert client.closed()


@pytest.mark.parametrize("chunks", CHUNKS)
def test_bad_chunks_that_come_late_never_become_a_whole_request(edge, upstream, connect, chunks):
    client = connect(edge)
    client.send(CHUNKED + "3\r\nabc\r\n")
    edge.until(lambda: upstream.seen)
    client.send(chunks)
    found = client.answer()
    assert (found.status, found.reason) == (400, "malformed_request")
    assert client.closed()
    edge.until(lambda: not upstream._open)
    assert [seen.ended for seen in upstream.seen] == [False]


@pytest.mark.parametrize("raw", LINES)
def test_a_head_that_has_two_readings_is_refused(edge, upstream, connect, raw):
    client = connect(edge)
    client.send(raw)
    refused(client, upstream)
    assert client.closed()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_has_two_readings_is_refused(edge, upstream, connect, path):
    client = connect(edge)
    client.send(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
    refused(client, upstream)


@pytest.mark.parametrize("path", [path for path in PATHS if "\\" not in path])
def test_a_path_that_has_two_readings_is_refused_over_http2(edge, upstream, connect2, path):
    found = connect2(edge).ask(path)
    assert (found.status, found.reason) == (400, "malformed_request")
    assert upstream.received == b""


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("/a%41%7e%2dx", "/aA~-x"),
        ("/a%c3%a9", "/a%C3%A9"),
        ("/a%3ab%2bc", "/a%3Ab%2Bc"),
        ("/a%20b", "/a%20b"),
        ("/a%25b", "/a%25b"),
        ("/...", "/..."),
        ("/.well", "/.well"),
        ("/a?", "/a"),
        ("/a?b=%2e%2e/c", "/a?b=%2e%2e/c"),
        ("/?a=//b", "/?a=//b"),
    ],
)
def test_a_path_with_one_reading_arrives_in_its_canonical_form(edge, upstream, connect, sent, arrives):
    assert connect(edge).ask(sent).status == 200
    assert upstream.seen[0].target == arrives


def test_what_follows_a_refused_request_is_not_read(edge, upstream, connect):
    client = connect(edge)
    client.send(POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + HEAD + "\r\n")
    refused(client, upstream)
    assert client.closed()
    assert upstream.received == b""


def test_a_body_that_looks_like_a_request_stays_a_body(edge, upstream, connect):
    client = connect(edge)
    body = (HEAD + "\r\n").encode()
    assert client.ask("/", "POST", body=body).status == 200
    assert [seen.body for seen in upstream.seen] == [body]


def test_a_get_with_a_body_arrives_with_it(edge, upstream, connect):
    client = connect(edge)
    client.send(HEAD + "Content-Length: 5\r\n\r\nhello")
    assert client.answer().status == 200
    assert (upstream.seen[0].method, upstream.seen[0].body) == ("GET", b"hello")


def test_a_refused_request_in_one_byte_pieces_is_refused_too(edge, upstream, connect):
    client = connect(edge)
    for byte in (POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n").encode():
        client.send(bytes([byte]))
    refused(client, upstream)


def test_a_good_request_in_one_byte_pieces_is_served(edge, upstream, connect):
    client = connect(edge)
    for byte in (CHUNKED + "5\r\nhello\r\n0\r\nX: y\r\n\r\n").encode():
        client.send(bytes([byte]))
    assert client.answer().status == 200
    assert upstream.seen[0].body == b"hello"


@pytest.mark.parametrize("path", ["/a;b=c/d", "/a%3Bb"])
def test_a_service_may_read_a_semicolon_like_any_other_character(world, upstream, connect, path):
    assert connect(world.edge(upstream.url, route={"path_parameters": True})).ask(path).status == 200
    assert upstream.seen[0].target == path


def test_a_field_of_spaces_holds_nobody_up(edge, upstream, connect):
    """Each would keep a parser busy that looks for its end again and again: a bystander's request waits for none."""
    for end in ("\0", "\r", "x"):
        client = connect(edge)
        client.send(f"{HEAD}A: x{' ' * 24_000}{end}\r\n\r\n")
        assert client.answer().status == (200 if end == "x" else 400)
    assert connect(edge).ask("/").status == 200


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "x_http_method", "X.Method.Override"])
def test_a_method_is_not_turned_into_another(edge, upstream, connect, name):
    client = connect(edge)
    client.send(f"{HEAD}{name}: DELETE\r\n\r\n")
    refused(client, upstream)
    assert connect(edge).ask(headers=[(name, "get")]).status == 200
    assert b"verride" not in upstream.received
