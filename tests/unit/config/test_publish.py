"""Services become routes, and a path is never looser by silence."""

from __future__ import annotations

from gateway.config import Allow, Config, PathRule, ServerCertificate, Service, routes_of, rules_of
from gateway.core.canonical import admit
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RawRequest, RequestFacts
from gateway.core.routes import Route, RouteTable


def config(**services: Service) -> Config:
    return Config.model_validate({"tls": [ServerCertificate(certificate="a", key="b")], "services": services})


def service(**changes: object) -> Service:
    return Service.model_validate({"host": "wiki.corp", "upstream": "http://127.0.0.1:1"} | changes)


def facts(path: str, method: str = "GET") -> RequestFacts:
    raw = RawRequest(method.encode(), b"", path.encode(), [(b"host", b"wiki.corp")], "1.1")
    found = admit(raw, Peer("127.0.0.1", 1, sni="wiki.corp"))
    assert isinstance(found, RequestFacts)
    return found


def test_a_service_gives_a_route_for_its_root_and_one_for_each_path() -> None:
    wiki = service(
        department="it",
        paths={"/admin": {"sensitivity": "high", "body_limit_mib": 1}, "/api/": {"device": "optional"}},
    )
    routes = routes_of(config(wiki=wiki))
    assert [(route.rule, route.prefix) for route in routes] == [("", ()), ("/admin", ("admin",)), ("/api/", ("api",))]
    root, admin, api = routes
    assert (root.service, root.upstream, root.host, root.department) == ("wiki", "wiki", "wiki.corp", "it")
    assert (root.sensitivity, admin.sensitivity, api.sensitivity) == ("normal", "high", "normal")
    assert (root.device_required, admin.device_required, api.device_required) == (True, True, False)
    assert (root.body_limit_bytes, admin.body_limit_bytes) == (1 << 30, 1 << 20)
    assert root.methods is None


def test_introspection_is_ten_seconds_for_staff_and_off_for_users_unless_said() -> None:
    def cache(**changes: object) -> float | None:
        return routes_of(config(wiki=service(**changes)))[0].introspect_cache_s

    assert cache() == 10.0
    assert cache(plane="user") is None
    assert cache(introspect="never") is None
    assert cache(introspect=2) == 2.0
    assert cache(plane="user", introspect=2) == 2.0


def test_other_methods_below_a_path_rule_are_not_allowed() -> None:
    table = RouteTable(routes_of(config(wiki=service(paths={"/read": {"methods": ["GET"]}}))))
    assert isinstance(table.match(facts("/read/x")), Route)
    assert table.match(facts("/read/x", "POST")) == Refusal("method_not_allowed")
    assert isinstance(table.match(facts("/ready", "POST")), Route)


def test_what_a_deeper_path_does_not_say_it_takes_from_the_path_above() -> None:
    wiki = service(
        device="optional",
        allow=Allow(roles=("staff",)),
        paths={
            "/admin/logs": PathRule(sensitivity="secret"),
            "/admin": PathRule(methods=("GET",), device="required", allow=Allow(roles=("admin",))),
        },
    )
    rules = rules_of(wiki)
    assert rules[""].allow == Allow(roles=("staff",))
    assert rules["/admin/logs"] == PathRule(
        methods=("GET",),
        device="required",
        allow=Allow(roles=("admin",)),
        sensitivity="secret",
        body_limit_mib=1024,
    )
    table = RouteTable(routes_of(config(wiki=wiki)))
    assert table.match(facts("/admin/logs/1", "DELETE")) == Refusal("method_not_allowed")


def test_a_rule_for_the_root_replaces_the_services_own() -> None:
    routes = routes_of(config(wiki=service(paths={"/": {"methods": ["GET"]}, "/form": {"methods": ["POST"]}})))
    assert [(route.rule, route.methods) for route in routes] == [
        ("/", frozenset({"GET"})),
        ("/form", frozenset({"POST"})),
    ]
