"""Endpoints for a person with a browser: on the gateway's own host, rate limited, with pages and a login."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.core.navigation import Resume
from gateway.core.reasons import Refusal, reason
from gateway.core.request import RequestFacts
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.request import EndpointRequest
from gateway.endpoints.router import Endpoint, Handler
from gateway.identity.login.flow import Login
from gateway.replies.replies import Reply

_UNAUTHENTICATED = 401


class Pages(Protocol):
    """Renders the pages of these endpoints; `name` is "choose", "me", "signed_out", "step_up" or "factors"."""

    def __call__(
        self, name: str, facts: RequestFacts, model: Mapping[str, Any], *, status: int = 200, code: str = "local"
    ) -> Reply:
        """The page, with this HTTP status and reason code."""


def browser_limiter() -> RateLimiter:
    """A bucket that is wide enough for a whole office that logs in from one address in the morning."""
    return RateLimiter(burst=200, per_s=10)


def browser_endpoint(method: str, path: str, handler: Handler, limiter: RateLimiter, host: str | None) -> Endpoint:
    """An endpoint that takes from a bucket of attempts, on this host alone; None is every host."""

    async def limited(request: EndpointRequest) -> Reply | Resume:
        if host is not None and request.facts.host != host:
            return request.refuse(Refusal("route_not_found"))
        if not limiter.take(request.facts.client_ip):
            return request.refuse(Refusal("too_many_attempts"))
        return await handler(request)

    return Endpoint(method, path, limited)


async def login_first(login: Login, request: EndpointRequest, refusal: Refusal) -> Reply:
    """The reply to a refused page: one whose sender is not logged in (any more) waits for the login."""
    if reason(refusal.reason).status != _UNAUTHENTICATED or not request.facts.wants_page:
        return request.refuse(refusal)
    target = await login.start(request.facts, None, b"")
    return request.refuse(target) if isinstance(target, Refusal) else request.go(target, refusal.reason)
