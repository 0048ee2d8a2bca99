"""The own paths for people with a browser: sign in, arrive at a service, look at one's sessions, sign out.

Thin: what is decided is decided in `gateway.identity`; here a request goes in and a value becomes an answer. All paths
but the arrival are on the gateway's own host alone. A sign-in is noted by its outcome; one for a service that leaves no
trace is not noted at all, and a refused one without a word about the client.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

from gateway.core.reasons import Refusal, reason
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.edge.endpoints import Attempts, Caller, OwnPath, Resuming
from gateway.identity.handover import ARRIVAL, LOGIN, Handover, Redirect
from gateway.identity.login import CALLBACK, HOME, Choice, Granted, Login
from gateway.identity.own_sessions import SIGNED_OUT, OwnSessions
from gateway.replies import Reply, deny, redirect

_UNAUTHENTICATED = 401
_FIELDS = 20


class Pages(Protocol):
    """Draws the pages of these paths; `name` is "choose", "me" or "signed_out"."""

    def __call__(self, name: str, facts: RequestFacts, model: Mapping[str, Any]) -> Reply:
        """The page."""


@dataclass(frozen=True, slots=True)
class People:
    """What these paths need. `note` writes one event; `origin` is the web origin of the gateway's own `host`."""

    host: str
    origin: str
    login: Login
    handover: Handover
    own: OwnSessions
    pages: Pages
    note: Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class _Visit:
    """A request for these paths."""

    facts: RequestFacts
    device: Device | None
    decision_id: str
    body: bytes
    params: Mapping[str, str]

    def refuse(self, refusal: Refusal) -> Reply:
        return deny(self.facts, (refusal.reason,), self.decision_id)

    def go(self, way: Redirect, code: str = "local") -> Reply:
        return redirect(way.location, code, self.decision_id, way.cookies)

    def form(self) -> dict[str, str] | Refusal:
        """The fields of a form, each once (application/x-www-form-urlencoded)."""
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


type _Handler = Callable[[_Visit], Awaitable[Reply]]


def paths(people: People, attempts: Attempts | None = None) -> list[OwnPath]:
    """The paths to hand to `endpoints.build`. All take from one bucket of attempts."""
    # A whole office may sign in from one address in the morning.
    bucket = Attempts(burst=200, per_s=10) if attempts is None else attempts

    def at(method: str, path: str, handler: _Handler, *, own_host: bool = True) -> OwnPath:
        async def answer(caller: Caller, body: bytes, params: Mapping[str, str]) -> Reply:
            if caller.facts is None:
                raise RuntimeError("a request that the data path has not seen")
            visit = _Visit(caller.facts, caller.device, caller.decision_id, body, params)
            if own_host and visit.facts.host != people.host:
                if path == HOME and method == "GET" and visit.facts.wants_page:
                    return visit.go(Redirect(people.origin + HOME))
                return visit.refuse(Refusal("route_not_found"))
            if not bucket.take(caller.client_ip):
                return visit.refuse(Refusal("too_many_attempts"))
            return await handler(visit)

        return OwnPath(method, path, answer)

    async def get_login(visit: _Visit) -> Reply:
        outcome = await people.login.begin(visit.facts, visit.device)
        if isinstance(outcome, Choice):
            ways = [{"issuer": issuer, "href": href} for issuer, href in outcome.ways]
            return people.pages("choose", visit.facts, {"ways": ways})
        return visit.refuse(outcome) if isinstance(outcome, Refusal) else visit.go(outcome, "login_required")

    async def get_callback(visit: _Visit) -> Reply:
        outcome = await people.login.callback(visit.facts, visit.device, visit.params["slug"])
        if isinstance(outcome, Refusal):
            people.note({"event": "login_refused", "reason": outcome.reason, "detail": outcome.detail})
            return visit.refuse(outcome)
        if not outcome.zero_log:
            people.note(_granted(outcome, visit))
        return visit.go(outcome.redirect, "login_ok")

    async def get_session(visit: _Visit) -> Reply:
        outcome = await people.handover.arrive(visit.facts, visit.device)
        if isinstance(outcome, Redirect):
            return visit.go(outcome, "login_ok")
        if isinstance(outcome, Refusal):
            return visit.refuse(outcome)
        instead = visit.refuse(Refusal("login_failed"))
        return Resuming(instead.status, instead.headers, instead.body, instead.reason, outcome)

    async def get_me(visit: _Visit) -> Reply:
        mine = await people.own.mine(visit.facts, visit.device)
        if not isinstance(mine, Refusal):
            document = mine.document()
            return people.pages("me", visit.facts, document) if visit.facts.wants_page else _json(document)
        if reason(mine.reason).status == _UNAUTHENTICATED and visit.facts.wants_page:
            way = await people.login.hold(visit.facts, None, b"")
            return visit.refuse(way) if isinstance(way, Refusal) else visit.go(way, mine.reason)
        return visit.refuse(mine)

    async def post_me(visit: _Visit) -> Reply:
        form = visit.form()
        ended = form if isinstance(form, Refusal) else await people.own.end(visit.facts, visit.device, form)
        if isinstance(ended, Refusal):
            return visit.refuse(ended)
        return visit.go(Redirect(HOME)) if visit.facts.wants_page else _json({"ended": ended})

    async def get_logout(visit: _Visit) -> Reply:
        return people.pages("signed_out", visit.facts, {})

    async def post_logout(visit: _Visit) -> Reply:
        form = visit.form()
        way = form if isinstance(form, Refusal) else await people.own.sign_out(visit.facts, visit.device, form)
        return visit.refuse(way) if isinstance(way, Refusal) else visit.go(way)

    return [
        at("GET", LOGIN, get_login),
        at("GET", CALLBACK + "{slug}", get_callback),
        at("GET", ARRIVAL, get_session, own_host=False),
        at("GET", HOME, get_me),
        at("POST", HOME, post_me),
        at("GET", SIGNED_OUT, get_logout),
        at("POST", SIGNED_OUT, post_logout),
    ]


def _granted(outcome: Granted, visit: _Visit) -> Mapping[str, Any]:
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
