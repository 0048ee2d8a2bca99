"""The own paths for people with a browser: sign in, arrive at a service, look at one's sessions, sign out.

Thin: what is decided is decided in `gateway.identity`; here a request goes in and a value becomes an answer. All paths
but the arrival are on the gateway's own host alone. A sign-in is noted by its outcome; one for a service that leaves no
trace is not noted at all, and a refused one without a word about the client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.core import paths as own
from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal
from gateway.endpoints.app import Endpoint, Resuming
from gateway.endpoints.browser_request import BrowserRequest, Handler, Pages, own_path, sign_in_first
from gateway.endpoints.dbsc import with_offer
from gateway.endpoints.rate_limit import RateLimiter
from gateway.identity.account.sessions import OwnSessions
from gateway.identity.login.flow import IssuerChoice, Login, LoginCompleted
from gateway.identity.login.return_ticket import ReturnTickets
from gateway.identity.sessions.dbsc import Dbsc
from gateway.replies.replies import Reply


@dataclass(frozen=True, slots=True)
class People:
    """What these paths need. `note` writes one event; `origin` is the web origin of the gateway's own `host`.

    `keys` None: sessions are not bound to keys of browsers.
    """

    host: str
    origin: str
    login: Login
    handover: ReturnTickets
    own: OwnSessions
    pages: Pages
    note: Callable[[Mapping[str, Any]], None]
    keys: Dbsc | None = None

    async def bound(self, reply: Reply) -> Reply:
        """The reply; where it opens a session, it asks the browser for a key as well."""
        return reply if self.keys is None else await with_offer(self.keys, reply)


def paths(people: People, attempts: RateLimiter | None = None) -> list[Endpoint]:
    """The paths to hand to `endpoints.build`. All take from one bucket of attempts."""
    # A whole office may sign in from one address in the morning.
    bucket = RateLimiter(burst=200, per_s=10) if attempts is None else attempts

    def at(method: str, path: str, handler: Handler, *, own_host: bool = True) -> Endpoint:
        return own_path(method, path, handler, bucket, people.host if own_host else None)

    async def get_login(visit: BrowserRequest) -> Reply:
        outcome = await people.login.begin(visit.facts, visit.device)
        if isinstance(outcome, IssuerChoice):
            ways = [{"issuer": issuer, "href": href} for issuer, href in outcome.ways]
            return people.pages("choose", visit.facts, {"ways": ways})
        return visit.refuse(outcome) if isinstance(outcome, Refusal) else visit.go(outcome, "login_required")

    async def get_callback(visit: BrowserRequest) -> Reply:
        outcome = await people.login.callback(visit.facts, visit.device, visit.params["slug"])
        if isinstance(outcome, Refusal):
            people.note({"event": "login_refused", "reason": outcome.reason, "detail": outcome.detail})
            return visit.refuse(outcome)
        if not outcome.zero_log:
            people.note(_granted(outcome, visit))
        return await people.bound(visit.go(outcome.redirect, "login_ok"))

    async def get_session(visit: BrowserRequest) -> Reply:
        outcome = await people.handover.arrive(visit.facts, visit.device)
        if isinstance(outcome, Redirect):
            return await people.bound(visit.go(outcome, "login_ok"))
        if isinstance(outcome, Refusal):
            return visit.refuse(outcome)
        if people.keys is not None:
            outcome = replace(outcome, fields=tuple(await people.keys.offer(outcome.cookies)))
        instead = visit.refuse(Refusal("login_failed"))
        return Resuming(instead.status, instead.headers, instead.body, instead.reason, outcome)

    async def get_me(visit: BrowserRequest) -> Reply:
        if visit.facts.host != people.host:
            page = visit.facts.wants_page
            return visit.go(Redirect(people.origin + own.ME)) if page else visit.refuse(Refusal("route_not_found"))
        mine = await people.own.mine(visit.facts, visit.device)
        if not isinstance(mine, Refusal):
            document = mine.document()
            return people.pages("me", visit.facts, document) if visit.facts.wants_page else _json(document)
        return await sign_in_first(people.login, visit, mine)

    async def post_me(visit: BrowserRequest) -> Reply:
        form = visit.form()
        ended = form if isinstance(form, Refusal) else await people.own.end(visit.facts, visit.device, form)
        if isinstance(ended, Refusal):
            return visit.refuse(ended)
        return visit.go(Redirect(own.ME)) if visit.facts.wants_page else _json({"ended": ended})

    async def get_logout(visit: BrowserRequest) -> Reply:
        return people.pages("signed_out", visit.facts, {})

    async def post_logout(visit: BrowserRequest) -> Reply:
        form = visit.form()
        way = form if isinstance(form, Refusal) else await people.own.sign_out(visit.facts, visit.device, form)
        return visit.refuse(way) if isinstance(way, Refusal) else visit.go(way)

    return [
        at("GET", own.LOGIN, get_login),
        at("GET", own.CALLBACK + "{slug}", get_callback),
        at("GET", own.SESSION, get_session, own_host=False),
        at("GET", own.ME, get_me, own_host=False),
        at("POST", own.ME, post_me),
        at("GET", own.LOGOUT, get_logout),
        at("POST", own.LOGOUT, post_logout),
    ]


def _granted(outcome: LoginCompleted, visit: BrowserRequest) -> Mapping[str, Any]:
    login = outcome.login
    return {
        "event": "login_ok",
        "session": login.id,
        "issuer": login.identity.issuer,
        "subject": login.identity.subject,
        "device": login.device_id,
        "client_ip": visit.facts.client_ip,
        "amr": list(login.identity.amr),
    }


def _json(document: Mapping[str, Any]) -> Reply:
    headers = (
        ("cache-control", "no-store"),
        ("content-type", "application/json"),
        ("x-content-type-options", "nosniff"),
        ("x-gateway-reason", "local"),
    )
    return Reply(200, headers, json.dumps(document, separators=(",", ":")).encode() + b"\n", "local")
