"""What browsers and services really send, through a real edge: cookies, URLs, methods, sloppy responses."""

from __future__ import annotations

import pytest

from gateway.core.cookies import SESSION
from tests.support.edge_upstreams import Http1Upstream, Seen, Talk

BOTH = pytest.mark.parametrize("kind", ["connect", "connect2"])


def test_the_crumbs_of_200_cookies_are_one_field(edge, upstream, connect2):
    crumbs = [("cookie", f"name-{n}={'v' * 120}") for n in range(200)]
    assert connect2(edge).ask(headers=crumbs).status == 200
    assert upstream.seen[0].all("cookie") == ["; ".join(value for _, value in crumbs)]


@BOTH
@pytest.mark.parametrize("value", ["a=\xe9\xa0\x85", "a=1;;b; =c;  d=\xa0", 'a="x, y"', "a=\xc3\xa9"])
def test_every_byte_of_a_cookie_goes_on_as_it_came(edge, upstream, request, kind, value):
    client = request.getfixturevalue(kind)(edge)
    assert client.ask(headers=[("cookie", value)]).status == 200
    assert client.ask(headers=[("cookie", f"{SESSION}=x;{value}")]).status == 200
    sent = value if kind == "connect" else value.encode().decode("latin-1")
    assert [seen.all("cookie") for seen in upstream.seen] == [[sent], [sent]]


@BOTH
@pytest.mark.parametrize(
    "target",
    [
        *("/caf%E9", "/a%FF", "/a%80/b", "/a[b]", "/a|b", "/a^b", "/a?b%", "/a?b%zz", "/a?b%FF", "/a?q[]=1&q[x]=100%"),
        *("/a?u=%u00e9", "/%C3%A9?x=%C3%A9&y=%E9"),
    ],
)
def test_a_url_that_browsers_make_is_passed_on_byte_for_byte(edge, upstream, request, kind, target):
    assert request.getfixturevalue(kind)(edge).ask(target).status == 200
    assert upstream.seen[0].target == target


@BOTH
@pytest.mark.parametrize("method", ["VERSION-CONTROL", "M-SEARCH", "get", "BASELINE-CONTROL", "x!#$%&'*+-.^_`|~1"])
def test_a_method_is_any_token_and_keeps_its_case(edge, upstream, request, kind, method):
    assert request.getfixturevalue(kind)(edge).ask(method=method).status == 200
    assert upstream.seen[0].method == method


@BOTH
def test_an_encoded_slash_passes_where_the_service_wants_it(world, upstream, request, kind):
    running = world.edge(upstream.url, route={"encoded_slash": True}, pipeline={"encoded_slash": True})
    client = request.getfixturevalue(kind)(running)
    assert client.ask("/projects/group%2fproject").status == 200
    assert upstream.seen[0].target == "/projects/group%2Fproject"
    ours = ("/.gateway%2fme", "/.well-known%2foauth-protected-resource")
    for odd in ("/a%2f..%2fb", "/a/..%2f", "/%2fa", "/a%252fb", *ours):
        if kind == "connect":
            client = request.getfixturevalue(kind)(running)
        refusal = client.ask(odd)
        assert (refusal.status, refusal.reason) == (400, "malformed_request"), odd
    assert len(upstream.seen) == 1


def test_white_space_before_a_colon_is_removed_from_responses(world, serve, connect):
    async def sloppy(talk: Talk, seen: Seen) -> None:
        head = b"HTTP/1.1 200 OK\r\nX-Mine \t: y\r\nTransfer-Encoding : chunked\r\n\r\n"
        await talk.send(head + b"2\r\nhi\r\n0\r\nX-T : z\r\n\r\n")

    upstream = serve(Http1Upstream(sloppy))
    client = connect(world.edge(upstream.url))
    for _ in range(2):
        answer = client.ask()
        assert (answer.status, answer.get("x-mine"), answer.body) == (200, "y", b"hi")
