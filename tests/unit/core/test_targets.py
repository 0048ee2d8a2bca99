import pytest

from gateway.core.canonical import admit
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RawRequest, RequestFacts


def ask(target, **how):
    raw = RawRequest(b"GET", b"", target, ((b"Host", b"a.example"),), "1.1", ended=True)
    return admit(raw, Peer("10.0.0.9", 4711, sni="a.example"), **how)


def reason(outcome):
    return outcome.reason if isinstance(outcome, Refusal) else None


@pytest.mark.parametrize(
    ("target", "path", "segments"),
    [
        (b"/", "/", ()),
        (b"/a", "/a", ("a",)),
        (b"/a/b", "/a/b", ("a", "b")),
        (b"/a/", "/a/", ("a",)),
        (b"/a.b/c.d", "/a.b/c.d", ("a.b", "c.d")),
        (b"/%41", "/A", ("A",)),
        (b"/%c3%a9", "/%C3%A9", ("\u00e9",)),
        (b"/a%20b", "/a%20b", ("a b",)),
        (b"/.well-known/x", "/.well-known/x", (".well-known", "x")),
        (b"/...", "/...", ("...",)),
        (b"/a;v=1", "/a;v=1", ("a;v=1",)),
        (b"/%25x", "/%25x", ("%x",)),
        (b"/a/%7Euser", "/a/~user", ("a", "~user")),
        # what browsers make of links that are no UTF-8, and what they leave as it is
        (b"/caf%e9/x", "/caf%E9/x", ("caf%E9", "x")),
        (b"/%ff%C3%A9", "/%FF%C3%A9", ("%FF\u00e9",)),
        (b"/%c0b", "/%C0b", ("%C0b",)),
        (b"/a[0]|b^", "/a[0]|b^", ("a[0]|b^",)),
    ],
)
def test_a_path_has_one_canonical_form(target, path, segments):
    found = ask(target)
    assert isinstance(found, RequestFacts)
    assert (found.path, found.segments) == (path, segments)


@pytest.mark.parametrize(
    "target",
    [b"", b"?", b"?a=b", b"a", b"//", b"/a//b", b"/..", b"/a/.", b"/%2e%2e", b"/%2fa", b"/%25%32%65", b"/%00", b"/%",
     b"*",
     b"/\xc0\xae", b"/%c0%ae", b"/%c0", b"/%e0%80%af", b"/%f8%80%80%80%af", b"/%ed%a0%80", b"/%a0..", b"/%85.%85",
     b"/%ef%bc%8e%ef%bc%8e", b"/..;x", b"http://a.example/", b"/a\\b", b"/a b", b"/#"],
)  # fmt: skip
def test_a_path_with_more_than_one_reading_is_refused(target):
    assert reason(ask(target)) == "malformed_request"


def test_a_query_is_kept_as_it_is_and_read_as_fields():
    found = ask(b"/p?a=1&a=%20&b&c=x+y")
    assert found.query == "a=1&a=%20&b&c=x+y"
    assert found.query_fields == (("a", "1"), ("a", " "), ("b", ""), ("c", "x y"))
    assert found.target == "/p?a=1&a=%20&b&c=x+y"
    assert ask(b"/p?").target == "/p"


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        (b"q=caf%E9", (("q", "caf%E9"),)),
        (b"q=100%&x=%zz&%", (("q", "100%"), ("x", "%zz"), ("%", ""))),
        (b"a[]=1&a[b]=2", (("a[]", "1"), ("a[b]", "2"))),
        (b"u=%u00e9", (("u", "%u00e9"),)),
    ],
)
def test_a_query_as_browsers_make_it_is_read_and_kept(query, fields):
    request = ask(b"/p?" + query)
    assert (request.query, request.query_fields) == (query.decode(), fields)


def test_an_encoded_slash_is_refused_unless_a_route_may_want_it():
    assert reason(ask(b"/a%2fb")) == "malformed_request"
    request = ask(b"/x/a%2fb", encoded_slash=True)
    assert (request.path, request.segments, request.has_encoded_slash) == ("/x/a%2Fb", ("x", "a%2Fb"), True)
    for odd in (b"/%2fa", b"/a%2f", b"/a%2f%2fb", b"/a%2f..", b"/..%2fa", b"/a%2f.%2fb", b"/a%252fb", b"/a%5cb"):
        assert reason(ask(odd, encoded_slash=True)) == "malformed_request"


def test_too_many_query_fields_are_refused():
    assert reason(ask(b"/?" + b"a&" * 600)) == "malformed_request"
