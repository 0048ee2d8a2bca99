"""Login (OpenID Connect authorization code flow): to the issuer, back from it, and on to the service.

`gateway.identity.login` decides. A login is recorded by its outcome; one for a zero-log service is not recorded at all,
and a refused one without a word about the client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.core import paths
from gateway.core.navigation import Redirect, Resume
from gateway.core.reasons import Refusal
from gateway.endpoints.browser_request import Pages, browser_endpoint, browser_limiter
from gateway.endpoints.dbsc import with_registration_offer
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.request import EndpointRequest
from gateway.endpoints.router import Endpoint
from gateway.identity.login.flow import IssuerChoice, Login, LoginCompleted
from gateway.identity.login.return_ticket import ReturnTickets
from gateway.identity.sessions.dbsc import Dbsc
from gateway.replies.replies import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginEndpoints:
    """Login on the gateway's own `host`, arrival on any. `note` records one event.

    `dbsc` None: sessions are not bound to keys of browsers.
    """

    host: str
    login: Login
    tickets: ReturnTickets
    pages: Pages
    note: Callable[[Mapping[str, Any]], None]
    dbsc: Dbsc | None = None
    limiter: RateLimiter = field(default_factory=browser_limiter)

    def endpoints(self) -> list[Endpoint]:
        """The endpoints, for the router. All take from one bucket of attempts."""
        return [
            browser_endpoint("GET", paths.LOGIN, self.get_login, self.limiter, self.host),
            browser_endpoint("GET", paths.CALLBACK, self.get_callback, self.limiter, self.host),
            browser_endpoint("GET", paths.SESSION, self.get_session, self.limiter, None),
        ]

    async def get_login(self, request: EndpointRequest) -> Reply:
        """To the issuer, or to the choice among several."""
        outcome = await self.login.begin(request.facts, request.device)
        if isinstance(outcome, IssuerChoice):
            links = [{"issuer": issuer, "href": href} for issuer, href in outcome.ways]
            return self.pages("choose", request.facts, {"ways": links})
        return request.refuse(outcome) if isinstance(outcome, Refusal) else request.go(outcome, "login_required")

    async def get_callback(self, request: EndpointRequest) -> Reply:
        """The authorization response of the issuer with this slug."""
        outcome = await self.login.callback(request.facts, request.device, request.slug)
        if isinstance(outcome, Refusal):
            self.note({"event": "login_refused", "reason": outcome.reason, "detail": outcome.detail})
            return request.refuse(outcome)
        if not outcome.zero_log:
            self.note(_event(outcome, request))
        return await with_registration_offer(self.dbsc, request.go(outcome.redirect, "login_ok"))

    async def get_session(self, request: EndpointRequest) -> Reply | Resume:
        """Redeem a return ticket: a session on this host, and on to the page or the held request."""
        outcome = await self.tickets.arrive(request.facts, request.device)
        if isinstance(outcome, Redirect):
            return await with_registration_offer(self.dbsc, request.go(outcome, "login_ok"))
        if isinstance(outcome, Refusal):
            return request.refuse(outcome)
        if self.dbsc is None:
            return outcome
        return replace(outcome, fields=tuple(await self.dbsc.offer(outcome.cookies)))


def _event(outcome: LoginCompleted, request: EndpointRequest) -> Mapping[str, Any]:
    login = outcome.login
    return {
        "event": "login_ok",
        "session": login.id,
        "issuer": login.identity.issuer,
        "subject": login.identity.subject,
        "device": login.device_id,
        "client_ip": request.facts.client_ip,
        "amr": list(login.identity.amr),
    }
