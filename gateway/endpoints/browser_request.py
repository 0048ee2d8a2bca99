"""What the own paths for people have in common: a visit, its form, its answer; and the pages they draw."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal, reason
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.endpoints.app import Caller, Endpoint
from gateway.endpoints.rate_limit import RateLimiter
from gateway.identity.login.flow import Login
from gateway.replies.replies import Reply, deny, redirect

_UNAUTHENTICATED = 401
_FIELDS = 20


class Pages(Protocol):
    """Draws the pages of these paths; `name` is "choose", "me", "signed_out", "step_up" or "factors"."""

    def __call__(
        self, name: str, facts: RequestFacts, model: Mapping[str, Any], *, status: int = 200, code: str = "local"
    ) -> Reply:
        """The page, with this HTTP status and reason code."""


@dataclass(frozen=True, slots=True)
class BrowserRequest:
    """A request for these paths."""

    facts: RequestFacts
    device: Device | None
    decision_id: str
    body: bytes
    params: Mapping[str, str]

    def refuse(self, refusal: Refusal) -> Reply:
        """A denial."""
        return deny(self.facts, (refusal.reason,), self.decision_id)

    def go(self, way: Redirect, code: str = "local") -> Reply:
        """A redirect."""
        return redirect(way.location, code, self.decision_id, way.cookies)

    def form(self) -> dict[str, str] | Refusal:
        """The fields of a form, each once (application/x-www-form-urlencoded). Refusal `malformed_request`."""
        kind = (self.facts.header("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            return Refusal("malformed_request", "content type")
        try:
            pairs = parse_qsl(
                self.body.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=_FIELDS,
            )
        except ValueError:
            return Refusal("malformed_request", "form")
        fields = dict(pairs)
        return fields if len(fields) == len(pairs) else Refusal("malformed_request", "a field that stands twice")


type Handler = Callable[[BrowserRequest], Awaitable[Reply]]


def own_path(method: str, path: str, handler: Handler, bucket: RateLimiter, host: str | None) -> Endpoint:
    """An own path that takes from a bucket of attempts, on this host alone; None is every host."""

    async def answer(caller: Caller, body: bytes, params: Mapping[str, str]) -> Reply:
        if caller.facts is None:
            raise RuntimeError("a request that the data path has not seen")
        visit = BrowserRequest(caller.facts, caller.device, caller.decision_id, body, params)
        if host is not None and visit.facts.host != host:
            return visit.refuse(Refusal("route_not_found"))
        if not bucket.take(caller.client_ip):
            return visit.refuse(Refusal("too_many_attempts"))
        return await handler(visit)

    return Endpoint(method, path, answer)


async def sign_in_first(login: Login, visit: BrowserRequest, refusal: Refusal) -> Reply:
    """What follows a refusal: a page whose sender is not signed in (any more) waits for the sign-in."""
    if reason(refusal.reason).status != _UNAUTHENTICATED or not visit.facts.wants_page:
        return visit.refuse(refusal)
    way = await login.hold(visit.facts, None, b"")
    return visit.refuse(way) if isinstance(way, Refusal) else visit.go(way, refusal.reason)
