"""A person's own account: their sessions on every device, and logout. `gateway.identity.account` decides."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core import paths
from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal
from gateway.endpoints.browser_request import Pages, browser_endpoint, browser_limiter, login_first
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.request import EndpointRequest
from gateway.endpoints.router import Endpoint
from gateway.identity.account.sessions import OwnSessions
from gateway.identity.login.flow import Login
from gateway.replies.documents import json_reply
from gateway.replies.replies import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEndpoints:
    """Sessions and logout on the gateway's own `host`, whose web origin is `origin`."""

    host: str
    origin: str
    login: Login
    sessions: OwnSessions
    pages: Pages
    limiter: RateLimiter = field(default_factory=browser_limiter)

    def endpoints(self) -> list[Endpoint]:
        """The endpoints, for the router. All take from one bucket of attempts."""
        return [
            browser_endpoint("GET", paths.ME, self.get_me, self.limiter, None),
            browser_endpoint("POST", paths.ME, self.post_me, self.limiter, self.host),
            browser_endpoint("GET", paths.LOGOUT, self.get_logout, self.limiter, self.host),
            browser_endpoint("POST", paths.LOGOUT, self.post_logout, self.limiter, self.host),
        ]

    async def get_me(self, request: EndpointRequest) -> Reply:
        """The person and their sessions, as a page or as JSON; from another host a page is sent to the own one."""
        if request.facts.host != self.host:
            if request.facts.wants_page:
                return request.go(Redirect(self.origin + paths.ME))
            return request.refuse(Refusal("route_not_found"))
        account = await self.sessions.mine(request.facts, request.device)
        if isinstance(account, Refusal):
            return await login_first(self.login, request, account)
        document = account.document()
        return self.pages("me", request.facts, document) if request.facts.wants_page else json_reply(document)

    async def post_me(self, request: EndpointRequest) -> Reply:
        """End one session, or all others."""
        form = request.form()
        ended = form if isinstance(form, Refusal) else await self.sessions.end(request.facts, request.device, form)
        if isinstance(ended, Refusal):
            return request.refuse(ended)
        return request.go(Redirect(paths.ME)) if request.facts.wants_page else json_reply({"ended": ended})

    async def get_logout(self, request: EndpointRequest) -> Reply:
        """The page after a logout."""
        return self.pages("signed_out", request.facts, {})

    async def post_logout(self, request: EndpointRequest) -> Reply:
        """Log out here, and at the issuer where it can be asked to (RP-initiated logout)."""
        form = request.form()
        if isinstance(form, Refusal):
            return request.refuse(form)
        target = await self.sessions.sign_out(request.facts, request.device, form)
        return request.refuse(target) if isinstance(target, Refusal) else request.go(target)
