"""Which service a canonical request is for: exact host first, then wildcard host; the longest path prefix wins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from gateway.core import paths
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts

Plane = Literal["staff", "user"]


@dataclass(frozen=True, slots=True)
class Route:
    """One published part of a service. `prefix` are decoded path segments; `methods` None means every method.

    `plane` "user" is zero-log: nothing about its requests is written anywhere. `introspect_cache_s` None means that a
    JWT is trusted until it expires; a number asks the issuer again at least that often. `rule` is the path key of the
    configuration that made this route, "" for the service itself. `path_parameters`: the service reads `;` in a path
    as any other character; `encoded_slash`: so it reads `%2F`.

    `own_authorization`: the Authorization header is the service's own, and is passed on without being looked at.
    `strip_headers` (a `*` at the end is any rest) do not reach the service in any spelling;
    `keep_headers` do, although clients speak as a proxy by them (`RequestFacts.asserted`). `origins`: other
    origins whose pages may open WebSockets with a person's session.
    """

    service: str
    host: str
    prefix: tuple[str, ...] = ()
    methods: frozenset[str] | None = None
    upstream: str = ""
    plane: Plane = "staff"
    department: str = ""
    sensitivity: str = "normal"
    device_required: bool = True
    introspect_cache_s: float | None = 10.0
    issuers: tuple[str, ...] = ()
    keep_bearer: bool = False
    own_authorization: bool = False
    identity_headers: bool = False
    preserve_host: bool = True
    body_limit_bytes: int = 1 << 30
    path_parameters: bool = False
    encoded_slash: bool = False
    strip_headers: frozenset[str] = frozenset()
    keep_headers: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    rule: str = ""

    @property
    def zero_log(self) -> bool:
        """Whether requests here leave no trace."""
        return self.plane == "user"

    def document(self) -> dict[str, str]:
        """The service as policy sees it."""
        return {
            "name": self.service,
            "plane": self.plane,
            "department": self.department,
            "sensitivity": self.sensitivity,
            "rule": self.rule,
        }


@dataclass(slots=True)
class _Node:
    routes: list[Route] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)


class RouteTable:
    """An immutable look-up table; its cost does not grow with the number of routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._hosts: dict[str, _Node] = {}
        for route in self.routes:
            node = self._hosts.setdefault(route.host, _Node())
            for segment in route.prefix:
                node = node.children.setdefault(segment, _Node())
            for other in node.routes:
                if other.methods is None or route.methods is None or other.methods & route.methods:
                    raise ValueError(f"two routes for {route.host}/{'/'.join(route.prefix)}")
            node.routes.append(route)

    def has_host(self, host: str) -> bool:
        """Whether a route names this very host."""
        return host in self._hosts

    def _host(self, host: str) -> _Node | None:
        node = self._hosts.get(host)
        if node is None:
            parent = host.partition(".")[2]
            node = self._hosts.get(f"*.{parent}") if parent else None
        return node

    def below(self, facts: RequestFacts) -> list[tuple[str, ...]]:
        """The prefixes of the routes of a request's host that begin with its path and go on."""
        node = self._host(facts.host)
        for segment in facts.segments:
            node = node.children.get(segment) if node is not None else None
        prefixes: list[tuple[str, ...]] = []
        waiting = [] if node is None else [(facts.segments, node)]
        while waiting:
            path, parent = waiting.pop()
            for segment, child in parent.children.items():
                waiting.append(((*path, segment), child))
                if child.routes:
                    prefixes.append((*path, segment))
        return sorted(prefixes)

    def has_zero_log(self, host: str) -> bool:
        """Whether a request to this host may be for a zero-log route, whatever its path."""
        node = self._host(host)
        waiting = [] if node is None else [node]
        while waiting:
            current = waiting.pop()
            if any(route.zero_log for route in current.routes):
                return True
            waiting += current.children.values()
        return False

    def match(self, facts: RequestFacts) -> Route | Refusal:
        """The route of a request; Refusal `route_not_found`, `method_not_allowed`, `malformed_request`.

        The last one is for a `;` or `%2F` that the service does not want, and for a path that is another route's when
        its `%2F` is read as a slash.
        """
        host = self._host(facts.host)
        if host is None:
            return Refusal("route_not_found")
        best = _deepest(host, facts.segments)
        for route in best.routes:
            if route.methods is None or facts.method in route.methods:
                if facts.has_parameters and not route.path_parameters:
                    return Refusal("malformed_request", "path parameters")
                if facts.has_encoded_slash and not (route.encoded_slash and _is_same_either_way(host, best, facts)):
                    return Refusal("malformed_request", "an encoded slash")
                return route
        return Refusal("method_not_allowed") if best.routes else Refusal("route_not_found")


def _deepest(host: _Node, segments: Iterable[str]) -> _Node:
    """The node of the longest prefix that has a route; the host's own without one."""
    node: _Node | None = host
    best = host
    for segment in segments:
        node = node.children.get(segment) if node is not None else None
        if node is None:
            break
        if node.routes:
            best = node
    return best


def _is_same_either_way(host: _Node, best: _Node, facts: RequestFacts) -> bool:
    """Whether the path has the same routes when its encoded slashes are slashes, and does not become one of ours."""
    split = [piece for segment in facts.segments for piece in segment.split("%2F")]
    return _deepest(host, split) is best and not f"/{'/'.join(split)}/".startswith(paths.RESERVED)
