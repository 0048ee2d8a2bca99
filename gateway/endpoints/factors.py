"""Second factors and step-up authentication (RFC 9470): prove a factor to go on, list, add and remove one's own.

`gateway.identity.account` decides. All endpoints are on the gateway's own host alone. Every proof, good or bad, is
recorded, except for a zero-log service; so is every change of a person's factors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core import paths
from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal, reason
from gateway.core.request import RequestFacts
from gateway.endpoints.browser_request import Pages, browser_endpoint, browser_limiter, login_first
from gateway.endpoints.dbsc import with_registration_offer
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.request import EndpointRequest
from gateway.endpoints.router import Endpoint
from gateway.identity.account.factors import Overview, OwnFactors
from gateway.identity.account.step_up import StepUpPrompt, StepUps
from gateway.identity.login.flow import Login
from gateway.identity.sessions.dbsc import Dbsc
from gateway.identity.sessions.login_sessions import LoginSession
from gateway.identity.ssf.events import EventSink, EventSubject, assurance_raised, credential_changed, tell_nobody
from gateway.replies.documents import script_reply
from gateway.replies.rendering import SCRIPT_FILE
from gateway.replies.replies import Reply


def _ignore_failure(code: str, facts: RequestFacts, login: LoginSession) -> None:
    del code, facts, login


@dataclass(frozen=True, slots=True)
class FactorEvents:
    """Who is told: `note` records one event, `emit` sends one to SSF receivers, `failed` hears of wrong answers."""

    note: Callable[[Mapping[str, Any]], None]
    emit: EventSink = tell_nobody
    failed: Callable[[str, RequestFacts, LoginSession], None] = _ignore_failure


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorEndpoints:
    """Step-up and factors on the gateway's own `host`. `dbsc` None: sessions are not bound to keys of browsers."""

    host: str
    login: Login
    step_ups: StepUps
    factors: OwnFactors
    pages: Pages
    events: FactorEvents
    dbsc: Dbsc | None = None
    limiter: RateLimiter = field(default_factory=browser_limiter)

    def endpoints(self) -> list[Endpoint]:
        """The endpoints, for the router. All take from one bucket of attempts."""
        return [
            browser_endpoint("GET", paths.STEP_UP, self.get_step_up, self.limiter, self.host),
            browser_endpoint("POST", paths.STEP_UP, self.post_step_up, self.limiter, self.host),
            browser_endpoint("GET", paths.FACTORS, self.get_factors, self.limiter, self.host),
            browser_endpoint("POST", paths.FACTORS, self.post_factors, self.limiter, self.host),
            browser_endpoint("GET", paths.FACTORS_SCRIPT, self.get_script, self.limiter, self.host),
        ]

    def _page(self, request: EndpointRequest, name: str, model: StepUpPrompt | Overview) -> Reply:
        status = reason(model.error).status if model.error else 200
        return self.pages(name, request.facts, model.document(), status=status, code=model.error or "local")

    async def get_step_up(self, request: EndpointRequest) -> Reply:
        """The prompt for a factor, or first the login."""
        outcome = await self.step_ups.look(request.facts, request.device)
        if isinstance(outcome, Refusal):
            return request.refuse(outcome)
        if isinstance(outcome, Redirect):
            return request.go(outcome, "login_required")
        return self._page(request, "step_up", outcome)

    async def post_step_up(self, request: EndpointRequest) -> Reply:
        """The answer to a prompt: on to the held request, or the prompt again with an error."""
        form = request.form()
        if isinstance(form, Refusal):
            return request.refuse(form)
        outcome = await self.step_ups.answer(request.facts, request.device, form)
        if isinstance(outcome, Refusal):
            return request.refuse(outcome)
        if isinstance(outcome, Redirect):
            return request.go(outcome, "login_required")
        if isinstance(outcome, StepUpPrompt):
            if not outcome.held.zero_log:
                self.events.note(_event("step_up_refused", outcome.login, reason=outcome.error))
                self.events.failed(outcome.error, request.facts, outcome.login)
            return self._page(request, "step_up", outcome)
        if not outcome.zero_log:
            client_ip = request.facts.client_ip
            self.events.note(_event("step_up_ok", outcome.login, kind=outcome.kind, client_ip=client_ip))
            await self.events.emit(assurance_raised(_subject(outcome.login), outcome.kind, time.time()))
        return await with_registration_offer(self.dbsc, request.go(outcome.redirect, "step_up_ok"))

    async def get_factors(self, request: EndpointRequest) -> Reply:
        """The person's factors."""
        outcome = await self.factors.look(request.facts, request.device)
        if isinstance(outcome, Refusal):
            return await login_first(self.login, request, outcome)
        return self._page(request, "factors", outcome)

    async def post_factors(self, request: EndpointRequest) -> Reply:
        """Add or remove a factor, or prove one."""
        form = request.form()
        if isinstance(form, Refusal):
            return request.refuse(form)
        outcome = await self.factors.act(request.facts, request.device, form)
        if isinstance(outcome, Refusal):
            return request.refuse(outcome)
        if isinstance(outcome, Redirect):
            return request.go(outcome, "auth_stale")
        if isinstance(outcome, Overview):
            if outcome.error:
                self.events.note(_event("factor_refused", outcome.login, reason=outcome.error))
                self.events.failed(outcome.error, request.facts, outcome.login)
            return self._page(request, "factors", outcome)
        self.events.note(_event(f"factor_{outcome.what}", outcome.login, kind=outcome.kind))
        if outcome.what != "proven":
            is_added, subject = outcome.what == "added", _subject(outcome.login)
            await self.events.emit(credential_changed(subject, outcome.kind, is_added=is_added, at=time.time()))
        return await with_registration_offer(self.dbsc, request.go(outcome.redirect, "factor_ok"))

    async def get_script(self, request: EndpointRequest) -> Reply:
        """The one script of the pages, which asks the browser for a passkey."""
        try:
            text = SCRIPT_FILE.read_bytes()
        except OSError:
            return request.refuse(Refusal("route_not_found"))
        return script_reply(text)


def _subject(login: LoginSession) -> EventSubject:
    return EventSubject(login.identity.issuer, login.identity.subject, login.sid)


def _event(event: str, login: LoginSession, **members: str) -> Mapping[str, Any]:
    identity = login.identity
    return {
        "event": event,
        "session": login.id,
        "issuer": identity.issuer,
        "subject": identity.subject,
        **members,
    }
