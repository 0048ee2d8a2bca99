from dataclasses import replace

import pytest

from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route, RouteTable


def facts(host="a.example", path=(), method="GET"):
    return RequestFacts(method, host, "/", tuple(path), "", (), (), "http/1.1", 0, Peer("::1", 1), "::1")


def table(*routes):
    return RouteTable(routes)


ROOT = Route("root", "a.example")
API = Route("api", "a.example", ("api",))
DEEP = Route("deep", "a.example", ("api", "v1", "admin"))
READ = Route("read", "a.example", ("files",), frozenset({"GET", "HEAD"}))
WRITE = Route("write", "a.example", ("files",), frozenset({"PUT"}))
WILD = Route("wild", "*.wild.example")
ONE = Route("one", "one.wild.example")


@pytest.mark.parametrize(
    ("host", "path", "method", "wanted"),
    [
        ("a.example", (), "GET", "root"),
        ("a.example", ("other",), "GET", "root"),
        ("a.example", ("api",), "POST", "api"),
        ("a.example", ("apiary",), "GET", "root"),
        ("a.example", ("api", "v1"), "GET", "api"),
        ("a.example", ("api", "v1", "admin", "x"), "GET", "deep"),
        ("a.example", ("api", "v1", "administrator"), "GET", "api"),
        ("a.example", ("API",), "GET", "root"),
        ("a.example", ("files", "x"), "HEAD", "read"),
        ("a.example", ("files",), "PUT", "write"),
        ("one.wild.example", (), "GET", "one"),
        ("two.wild.example", (), "GET", "wild"),
    ],
)
def test_the_longest_prefix_of_the_nearest_host_wins(host, path, method, wanted):
    found = table(ROOT, API, DEEP, READ, WRITE, WILD, ONE).match(facts(host, path, method))
    assert isinstance(found, Route)
    assert found.service == wanted


@pytest.mark.parametrize("host", ["b.example", "x.a.example", "wild.example", "x.y.wild.example", "localhost", ""])
def test_any_other_host_has_no_route(host):
    assert table(ROOT, WILD).match(facts(host)) == Refusal("route_not_found")


def test_a_path_above_every_prefix_has_no_route():
    assert table(API).match(facts(path=("other",))) == Refusal("route_not_found")
    assert table(API).match(facts()) == Refusal("route_not_found")


def test_a_method_that_no_route_takes_is_not_allowed_and_falls_through_to_nobody():
    assert table(ROOT, READ, WRITE).match(facts(path=("files",), method="DELETE")) == Refusal("method_not_allowed")


@pytest.mark.parametrize(
    "second",
    [Route("x", "a.example", ("files",)), Route("x", "a.example", ("files",), frozenset({"GET"}))],
)
def test_two_routes_for_one_place_are_refused(second):
    with pytest.raises(ValueError, match=r"two routes for a\.example/files"):
        table(READ, second)


def test_a_table_of_none_has_no_route():
    assert table().match(facts()) == Refusal("route_not_found")


def test_the_user_plane_leaves_no_trace():
    assert Route("x", "a.example", plane="user").zero_log
    assert not ROOT.zero_log


def test_a_route_is_safe_until_it_is_told_otherwise():
    assert ROOT.device_required
    assert not ROOT.keep_bearer
    assert not ROOT.identity_headers
    assert ROOT.introspect_cache_s == 10


def test_policy_sees_the_service():
    route = Route("x", "a.example", department="people", sensitivity="high", rule="/admin")
    assert route.document() == {
        "name": "x",
        "plane": "staff",
        "department": "people",
        "sensitivity": "high",
        "rule": "/admin",
    }


def test_a_semicolon_is_refused_where_the_service_does_not_take_it():
    plain, takes = Route("root", "a.example"), Route("takes", "b.example", path_parameters=True)
    for path in ("/a;b", "/a%3Bb"):
        asked = RequestFacts("GET", "a.example", path, ("a;b",), "", (), (), "h2", 0, Peer("::1", 1), "::1")
        assert table(plain, takes).match(asked) == Refusal("malformed_request", "path parameters")
        assert table(plain, takes).match(replace(asked, host="b.example")) is takes


def test_a_name_of_its_own_is_told_from_one_that_a_wildcard_takes():
    assert table(WILD, ONE).has_host("one.wild.example")
    assert not table(WILD, ONE).has_host("two.wild.example")


def test_an_encoded_slash_needs_a_route_that_keeps_it_and_never_hides_another_route():
    def match(segments, *routes):
        path = "/" + "/".join(segments)
        return table(*routes).match(replace(facts(path=segments), path=path))

    keeping, admin = Route("root", "a.example", encoded_slash=True), Route("admin", "a.example", ("admin",))
    refusal = Refusal("malformed_request", "an encoded slash")
    assert match(("x", "a%2Fb"), keeping, admin) is keeping
    assert match(("x", "a%2Fb"), ROOT) == refusal
    assert match(("admin%2Fx",), keeping, admin) == refusal
    assert match(("admin%2Fx",), keeping) is keeping
    assert match((".gateway%2Fme",), keeping) == refusal


def test_a_host_with_a_zero_log_route_anywhere_is_known_as_one() -> None:
    table = RouteTable(
        [
            Route("staff", "both.example"),
            Route("user", "both.example", ("u", "v"), plane="user"),
            Route("wild", "*.users.example", plane="user"),
            Route("plain", "plain.example"),
        ]
    )
    assert [table.has_zero_log(host) for host in ("both.example", "x.users.example")] == [True, True]
    assert [table.has_zero_log(host) for host in ("plain.example", "nobody.example")] == [False, False]
