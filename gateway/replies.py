"""The only place where the gateway's own answers are built: denials, challenges, step-ups, redirects.

A person gets a page, a program gets JSON (RFC 9457), a gRPC client gets a status. All of them carry the decision id and
the first reason, and none may be stored.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from gateway.core.reasons import Reason, is_code, reason
from gateway.core.request import RequestFacts

_TEMPLATES = Path(__file__).with_name("templates")
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_FAILS = 400
_UNAUTHENTICATED = 401
_SERVER_FAILS = 500
_RETRY_AFTER_S = "2"

# HTTP status -> gRPC status (the mapping of the gRPC specification, with 404 as what it means here).
_GRPC = {401: 16, 403: 7, 404: 5, 405: 12, 408: 4, 413: 8, 429: 8, 431: 8, 502: 14, 503: 14, 504: 14}
_GRPC_INTERNAL = 13

# Every English word of these answers, but the reasons' own (core/reasons).
_WORDS = {
    "where": "You asked for",
    "why": "Why",
    "now": "What you can do",
    "decision": "Decision",
    "time": "Time",
}
_TITLES = {
    "deny": "You cannot open this",
    "login": "Please sign in",
    "missing": "There is nothing here",
    "trouble": "This does not work right now",
}
_KINDS = {400: "trouble", 401: "login", 404: "missing", 405: "missing", 421: "trouble"}
_PROBLEM_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    413: "Content too large",
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


def deny(
    facts: RequestFacts | None,
    codes: Sequence[str],
    decision_id: str,
    *,
    challenge: str | None = None,
    at: float | None = None,
) -> Reply:
    """The answer to a request that does not go on.

    The first code that stands for a refusal gives the status; `facts` is None when the request could not be read.
    `challenge` is the value of WWW-Authenticate (RFC 6750, RFC 9470); a 401 has one in any case. `at` is the time the
    page shows, seconds since the epoch, by default now.
    """
    reasons = [reason(code) for code in dict.fromkeys(codes) if is_code(code)]
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
        status, body = first.status, _page(facts, fails, headers, decision_id, time.time() if at is None else at)
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
        "title": _PROBLEM_TITLES.get(first.status, _TITLES["deny"]),
        "status": first.status,
        "detail": f"{first.what} {first.fix}".rstrip(),
        "reason": first.code,
        "reasons": codes or [first.code],
        "decision": decision_id,
    }
    return json.dumps(problem, separators=(",", ":")).encode() + b"\n"


def _page(
    facts: RequestFacts, fails: list[Reason], headers: list[tuple[str, str]], decision_id: str, at: float
) -> bytes:
    template, style, policy = _page_parts()
    status = fails[0].status
    kind = _KINDS.get(status, "trouble" if status >= _SERVER_FAILS else "deny")
    when = datetime.fromtimestamp(at, UTC)
    headers += [("content-type", "text/html; charset=utf-8"), ("content-security-policy", policy)]
    return template.render(
        title=_TITLES[kind],
        kind=kind,
        style=style,
        host=facts.host,
        reasons=fails,
        fixes=list(dict.fromkeys(entry.fix for entry in fails if entry.fix)),
        decision=decision_id,
        iso=when.isoformat(timespec="seconds"),
        time=when.strftime("%Y-%m-%d %H:%M:%S UTC"),
        words=_WORDS,
    ).encode()


@cache
def _page_parts() -> tuple[Template, str, str]:
    """The template, its style, and the Content-Security-Policy that allows that style alone."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_TEMPLATES / "reply.css").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return environment.get_template("reply.html"), style, policy
