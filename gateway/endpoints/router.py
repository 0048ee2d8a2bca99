"""Endpoint router: method and path of an own URL lead to one handler, which answers with a `Reply`.

Law: nothing here is believed because it came this far. Every input has a size and a type, and the device is the one
that the handshake proved.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from gateway.core.navigation import Resume
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.endpoints.request import EndpointRequest
from gateway.replies.rendering import NO_BRANDING, Branding
from gateway.replies.replies import Reply

BODY_LIMIT_BYTES = 32_768

type Handler = Callable[[EndpointRequest], Awaitable[Reply | Resume]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One own URL. A path that ends in a slash takes one more segment, or any further path where `is_tree`.

    The handler answers, or names the held request that is to be judged and forwarded in its place. A handler of GET
    answers HEAD as well. `body_limit_bytes` None: the handler bounds the body itself.
    """

    method: str
    path: str
    handler: Handler
    is_tree: bool = False
    body_limit_bytes: int | None = BODY_LIMIT_BYTES

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method that this handler answers."""
        return (self.method, "HEAD") if self.method == "GET" else (self.method,)

    def matches(self, path: str) -> bool:
        """Whether a path, percent-decoded, is this endpoint's."""
        if not self.path.endswith("/"):
            return path == self.path
        slug = path.removeprefix(self.path)
        return path.startswith(self.path) and (self.is_tree or (slug != "" and "/" not in slug))


class Router:
    """The table of all endpoints of one generation. Raises ValueError when two would answer the same request."""

    def __init__(self, endpoints: Sequence[Endpoint], branding: Branding = NO_BRANDING) -> None:
        self.endpoints = tuple(endpoints)
        self._branding = branding
        names = [(endpoint.method, endpoint.path) for endpoint in endpoints]
        if len(set(names)) < len(names):
            raise ValueError("two endpoints have the same method and path")

    async def answer(self, facts: RequestFacts, device: Device | None, body: bytes) -> Reply | Resume:
        """The reply, without a length, or the held request that goes on instead. Raises whatever a handler raises."""
        path, decision_id = unquote(facts.path), secrets.token_hex(12)
        request = EndpointRequest(
            facts=facts, device=device, body=body, decision_id=decision_id, branding=self._branding
        )
        candidates = [endpoint for endpoint in self.endpoints if endpoint.matches(path)]
        endpoint = next((endpoint for endpoint in candidates if facts.method in endpoint.methods), None)
        if endpoint is None and not candidates:
            return request.problem("route_not_found")
        if endpoint is None:
            allowed = ", ".join(method for candidate in candidates for method in candidate.methods)
            return request.problem("method_not_allowed").with_fields(("allow", allowed))
        if endpoint.body_limit_bytes is not None and len(body) > endpoint.body_limit_bytes:
            return request.problem("body_too_large")
        if endpoint.path.endswith("/"):
            slug = path.removeprefix(endpoint.path)
            request = EndpointRequest(
                facts=facts, device=device, body=body, decision_id=decision_id, branding=self._branding, slug=slug
            )
        reply = await endpoint.handler(request)
        return reply.without_body() if isinstance(reply, Reply) and facts.method == "HEAD" else reply
