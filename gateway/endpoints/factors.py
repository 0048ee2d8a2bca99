"""The own paths of second factors: prove one to go on, look at one's own, add and remove.

Thin, like the other paths for people: `gateway.identity` decides. All are on the gateway's own host alone. Every proof,
good or bad, is noted, but for a service that leaves no trace; so is every change of somebody's factors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.core import paths as own
from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal, reason
from gateway.core.request import RequestFacts
from gateway.endpoints.app import Endpoint
from gateway.endpoints.browser_request import BrowserRequest, Handler, Pages, own_path, sign_in_first
from gateway.endpoints.dbsc import with_offer
from gateway.endpoints.rate_limit import RateLimiter
from gateway.identity.account.factors import Overview, OwnFactors
from gateway.identity.account.step_up import StepUpPrompt, StepUps
from gateway.identity.login.flow import Login
from gateway.identity.sessions.dbsc import Dbsc
from gateway.identity.sessions.login_sessions import LoginSession
from gateway.identity.ssf.events import EventSink, EventSubject, assurance_raised, credential_changed, tell_nobody
from gateway.replies import replies
from gateway.replies.replies import Reply

_SCRIPT_FILE = Path(replies.__file__).with_name("templates") / "factors.js"


@dataclass(frozen=True, slots=True)
class SecondFactors:
    """What these paths need. `note` writes one event, `failed` hears of wrong answers; `host` is the gateway's own."""

    host: str
    login: Login
    step_ups: StepUps
    own: OwnFactors
    pages: Pages
    note: Callable[[Mapping[str, Any]], None]
    keys: Dbsc | None = None
    tell: EventSink = tell_nobody
    failed: Callable[[str, RequestFacts, LoginSession], None] = lambda reason, facts, login: None  # noqa: ARG005

    async def bound(self, reply: Reply) -> Reply:
        """The reply; where it opens a session, it asks the browser for a key as well."""
        return reply if self.keys is None else await with_offer(self.keys, reply)


def paths(second: SecondFactors, attempts: RateLimiter | None = None) -> list[Endpoint]:
    """The paths to hand to `endpoints.build`. All take from one bucket of attempts."""
    bucket = RateLimiter(burst=200, per_s=10) if attempts is None else attempts

    def at(method: str, path: str, handler: Handler) -> Endpoint:
        return own_path(method, path, handler, bucket, second.host)

    def page(visit: BrowserRequest, name: str, model: StepUpPrompt | Overview) -> Reply:
        status = reason(model.error).status if model.error else 200
        return second.pages(name, visit.facts, model.document(), status=status, code=model.error or "local")

    async def get_step_up(visit: BrowserRequest) -> Reply:
        outcome = await second.step_ups.look(visit.facts, visit.device)
        if isinstance(outcome, Refusal):
            return visit.refuse(outcome)
        return visit.go(outcome, "login_required") if isinstance(outcome, Redirect) else page(visit, "step_up", outcome)

    async def post_step_up(visit: BrowserRequest) -> Reply:
        form = visit.form()
        outcome = form if isinstance(form, Refusal) else await second.step_ups.answer(visit.facts, visit.device, form)
        if isinstance(outcome, Refusal):
            return visit.refuse(outcome)
        if isinstance(outcome, Redirect):
            return visit.go(outcome, "login_required")
        if isinstance(outcome, StepUpPrompt):
            if not outcome.held.zero_log:
                second.note(_event("step_up_refused", outcome.login, reason=outcome.error))
                second.failed(outcome.error, visit.facts, outcome.login)
            return page(visit, "step_up", outcome)
        if not outcome.zero_log:
            second.note(_event("step_up_ok", outcome.login, kind=outcome.kind, client_ip=visit.facts.client_ip))
            await second.tell(assurance_raised(_about(outcome.login), outcome.kind, time.time()))
        return await second.bound(visit.go(outcome.redirect, "step_up_ok"))

    async def get_factors(visit: BrowserRequest) -> Reply:
        outcome = await second.own.look(visit.facts, visit.device)
        if isinstance(outcome, Refusal):
            return await sign_in_first(second.login, visit, outcome)
        return page(visit, "factors", outcome)

    async def post_factors(visit: BrowserRequest) -> Reply:
        form = visit.form()
        outcome = form if isinstance(form, Refusal) else await second.own.act(visit.facts, visit.device, form)
        if isinstance(outcome, Refusal):
            return visit.refuse(outcome)
        if isinstance(outcome, Redirect):
            return visit.go(outcome, "auth_stale")
        if isinstance(outcome, Overview):
            if outcome.error:
                second.note(_event("factor_refused", outcome.login, reason=outcome.error))
                second.failed(outcome.error, visit.facts, outcome.login)
            return page(visit, "factors", outcome)
        second.note(_event(f"factor_{outcome.what}", outcome.login, kind=outcome.kind))
        if outcome.what != "proven":
            is_added, about = outcome.what == "added", _about(outcome.login)
            await second.tell(credential_changed(about, outcome.kind, is_added=is_added, at=time.time()))
        return await second.bound(visit.go(outcome.redirect, "factor_ok"))

    async def get_script(visit: BrowserRequest) -> Reply:
        try:
            text = _SCRIPT_FILE.read_bytes()
        except OSError:
            return visit.refuse(Refusal("route_not_found"))
        headers = (
            ("cache-control", "no-store"),
            ("content-type", "text/javascript; charset=utf-8"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-gateway-reason", "local"),
        )
        return Reply(200, headers, text, "local")

    return [
        at("GET", own.STEP_UP, get_step_up),
        at("POST", own.STEP_UP, post_step_up),
        at("GET", own.FACTORS, get_factors),
        at("POST", own.FACTORS, post_factors),
        at("GET", own.FACTORS_SCRIPT, get_script),
    ]


def _about(login: LoginSession) -> EventSubject:
    return EventSubject(login.identity.issuer, login.identity.subject, login.sid)


def _event(event: str, login: LoginSession, **more: str) -> Mapping[str, Any]:
    identity = login.identity
    return {
        "event": event,
        "session": login.id,
        "issuer": identity.issuer,
        "subject": identity.subject,
        **more,
    }
