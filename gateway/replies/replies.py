"""Replies of the gateway itself (the only place where they are built): denials, challenges, step-ups, redirects.

A person gets a page, a program gets JSON (RFC 9457), a gRPC client gets a status. All of them carry the decision id and
the first reason, and none may be stored.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from gateway.core import paths
from gateway.core.reasons import Reason, is_code, reason
from gateway.core.request import RequestFacts
from gateway.replies.rendering import NO_BRANDING, Branding, RenderedPage, render, strings

_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_FAILS = 400
_UNAUTHENTICATED = 401
_SERVER_FAILS = 500
_RETRY_AFTER_S = "2"

# HTTP status -> gRPC status (the mapping of the gRPC specification, with 404 as what it means here).
_GRPC = {401: 16, 403: 7, 404: 5, 405: 12, 408: 4, 413: 8, 429: 8, 431: 8, 502: 14, 503: 14, 504: 14}
_GRPC_INTERNAL = 13

_KINDS = {400: "trouble", 401: "login", 404: "missing", 405: "missing", 421: "trouble"}
# What policy did beside the refusal is what the page is about.
_ALARMS = frozenset({"session_stolen", "account_attacked", "account_locked"})
_SECOND_FACTOR = frozenset({"mfa_required", "mfa_stale", "risk_high", "risk_medium", "account_attacked"})
_PROBLEM_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    413: "Content too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    429: "Too many requests",
    431: "Header fields too large",
    500: "Gateway failure",
    502: "Bad gateway",
    503: "Unavailable",
    504: "Gateway timeout",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the gateway's own. Header names are lower case; the edge adds the length and the framing."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    reason: str

    def with_fields(self, *fields: tuple[str, str]) -> Reply:
        """The same reply with further header fields."""
        return replace(self, headers=(*self.headers, *fields)) if fields else self

    def with_status(self, status: int) -> Reply:
        """The same reply with another status."""
        return replace(self, status=status)

    def without_body(self) -> Reply:
        """The reply to HEAD."""
        return replace(self, body=b"")


def deny(
    facts: RequestFacts | None,
    codes: Sequence[str],
    decision_id: str,
    *,
    challenge: str | None = None,
    at: float | None = None,
    branding: Branding = NO_BRANDING,
    texts: Mapping[str, Reason] = MappingProxyType({}),
) -> Reply:
    """The answer to a request that does not go on.

    The first code that stands for a refusal gives the status; `facts` is None when the request could not be read.
    `challenge` is the value of WWW-Authenticate (RFC 6750, RFC 9470); a 401 has one in any case. `at` is the time the
    page shows, seconds since the epoch, by default now; `branding` the company it speaks for; `texts` are those of the
    policies' own codes.
    """
    reasons = [texts.get(code) or reason(code) for code in dict.fromkeys(codes) if is_code(code)]
    fails = [entry for entry in reasons if entry.status >= _FAILS] or [reason("default_deny")]
    first = fails[0]
    headers = _headers(first.code, decision_id)
    if challenge is not None and not _PLAIN.match(challenge):
        challenge = None
    if first.status == _UNAUTHENTICATED and challenge is None:
        challenge = "Bearer"
    if challenge is not None:
        headers.append(("www-authenticate", challenge))
    if first.status in {429, 503}:
        headers.append(("retry-after", _RETRY_AFTER_S))
    if facts is not None and facts.protocol == "grpc":
        status, body = _grpc(first, headers), b""
    elif facts is not None and facts.wants_page:
        page = _rendered(facts, fails, decision_id, time.time() if at is None else at, branding)
        status, body = first.status, _page(page, fails, headers, decision_id)
    else:
        status, body = first.status, _problem(first, [entry.code for entry in reasons], headers, decision_id)
    if facts is not None and facts.method == "HEAD":
        body = b""
    return Reply(status, tuple(headers), body, first.code)


def redirect(location: str, code: str, decision_id: str, cookies: Sequence[str] = ()) -> Reply:
    """A 302 to `location`, for a page only; `cookies` are whole Set-Cookie values. Raises ValueError on a bad value."""
    if not location.startswith(("https://", "http://", "/")) or location.startswith(("//", "/\\")):
        raise ValueError("not an address to redirect to")
    if not all(_PLAIN.match(value) for value in (location, *cookies)):
        raise ValueError("a header value that is not printable ASCII")
    headers = [*_headers(code, decision_id), ("location", location), *(("set-cookie", value) for value in cookies)]
    return Reply(302, tuple(headers), b"", code)


def _headers(code: str, decision_id: str) -> list[tuple[str, str]]:
    return [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-gateway-decision", decision_id if _ID.match(decision_id) else "-"),
        ("x-gateway-reason", code),
    ]


def grpc_status(code: str) -> int:
    """The gRPC status of a reason code."""
    return _GRPC.get(reason(code).status, _GRPC_INTERNAL) if is_code(code) else _GRPC_INTERNAL


def _grpc(first: Reason, headers: list[tuple[str, str]]) -> int:
    """A trailers-only answer: HTTP 200, the status among the headers."""
    headers += [
        ("content-type", "application/grpc"),
        ("grpc-status", str(grpc_status(first.code))),
        ("grpc-message", quote(f"{first.code}: {first.what}", safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")),
    ]
    return 200


def _problem(first: Reason, codes: list[str], headers: list[tuple[str, str]], decision_id: str) -> bytes:
    headers.append(("content-type", "application/problem+json"))
    problem: dict[str, Any] = {
        "type": f"urn:gateway:v1:reason:{first.code}",
        "title": _PROBLEM_TITLES.get(first.status, "Forbidden"),
        "status": first.status,
        "detail": f"{first.what} {first.fix}".rstrip(),
        "reason": first.code,
        "reasons": codes or [first.code],
        "decision": decision_id,
    }
    return json.dumps(problem, separators=(",", ":")).encode() + b"\n"


def _page(page: RenderedPage | None, fails: list[Reason], headers: list[tuple[str, str]], decision_id: str) -> bytes:
    """The page of a denial; plain text where it cannot be rendered."""
    if page is None:
        headers.append(("content-type", "text/plain; charset=utf-8"))
        lines = [f"{entry.what} {entry.fix} ({entry.code})" for entry in fails]
        return "\n".join([*lines, f"Decision: {decision_id}", ""]).encode("utf-8", "replace")
    headers += [("content-type", "text/html; charset=utf-8"), ("content-security-policy", page.policy)]
    return page.body


def _rendered(
    facts: RequestFacts, fails: list[Reason], decision_id: str, at: float, branding: Branding
) -> RenderedPage | None:
    status, code = fails[0].status, fails[0].code
    kind = "alarm" if code in _ALARMS else _KINDS.get(status, "trouble" if status >= _SERVER_FAILS else "deny")
    try:
        when, texts = datetime.fromtimestamp(at, UTC), strings()["deny"]
        model = {
            "title": texts["titles"].get(code) or texts["titles"][kind],
            "kind": kind,
            "host": facts.host,
            "reasons": fails,
            "steps": _steps(fails, texts["more"]),
            "actions": _actions(kind, fails, branding.home),
            "decision": decision_id,
            "iso": when.isoformat(timespec="seconds"),
            "time": when.strftime("%Y-%m-%d %H:%M:%S UTC"),
        }
    except (LookupError, ValueError, ArithmeticError, OSError):
        return None
    return render("deny", model, branding)


def _steps(fails: list[Reason], more: Mapping[str, list[str]]) -> list[str]:
    """What there is to do, each thing once."""
    steps = [step for entry in fails for step in (entry.fix, *more.get(entry.code, ()))]
    return list(dict.fromkeys(filter(None, steps)))


def _actions(kind: str, fails: list[Reason], home: str) -> list[dict[str, str]]:
    """Links to go on with: only where people can log in. The empty address is the very page they asked for."""
    if not home:
        return []
    links = []
    if kind == "login" or fails[0].status >= _SERVER_FAILS:
        links.append({"word": "sign_in" if kind == "login" else "again", "href": ""})
    if kind == "alarm" and fails[0].code != "account_locked":
        links.append({"word": "home", "href": home})
    if any(entry.code in _SECOND_FACTOR or entry.code.startswith("factor_") for entry in fails):
        links.append({"word": "factors", "href": home.removesuffix(paths.ME) + paths.FACTORS})
    return links
