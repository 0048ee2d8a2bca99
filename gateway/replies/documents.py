"""Replies that carry a document: JSON, a file, a page, a script; and those that carry nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.core.request import RequestFacts
from gateway.replies.rendering import RenderedPage
from gateway.replies.replies import Reply

_RETRY_S = "5"
_UNAVAILABLE = 503
_NO_STORE = "no-store"


def _headers(cache_control: str, media_type: str, code: str = "local") -> list[tuple[str, str]]:
    return [
        ("cache-control", cache_control),
        ("content-type", media_type),
        ("x-content-type-options", "nosniff"),
        ("x-gateway-reason", code),
    ]


def json_reply(document: Mapping[str, Any], status: int = 200, *, cache_control: str = _NO_STORE) -> Reply:
    """A JSON document (RFC 8259)."""
    body = json.dumps(document, separators=(",", ":")).encode()
    return Reply(status, tuple(_headers(cache_control, "application/json")), body, "local")


def oauth_error_reply(status: int, description: str) -> Reply:
    """A refusal as RFC 6749 section 5.2 words it; only a 503, which is worth another try, says when."""
    is_retry = status == _UNAVAILABLE
    error = "temporarily_unavailable" if is_retry else "invalid_request"
    reply = json_reply({"error": error, "error_description": description}, status)
    return reply.with_fields(("retry-after", _RETRY_S)) if is_retry else reply


def file_reply(content: bytes, media_type: str, *, cache_control: str = _NO_STORE) -> Reply:
    """A file."""
    return Reply(200, tuple(_headers(cache_control, media_type)), content, "local")


def script_reply(content: bytes) -> Reply:
    """A script for pages of this very origin."""
    reply = file_reply(content, "text/javascript; charset=utf-8")
    return reply.with_fields(("cross-origin-resource-policy", "same-origin"))


def page_reply(page: RenderedPage, facts: RequestFacts, *, status: int = 200, code: str = "local") -> Reply:
    """A page with its Content-Security-Policy, for its own origin alone."""
    headers = (
        *_headers(_NO_STORE, "text/html; charset=utf-8", code),
        ("content-security-policy", page.policy),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        # "no-referrer" would take the Origin from our own forms, and with it the proof that they are ours.
        ("referrer-policy", "same-origin"),
    )
    return Reply(status, headers, b"" if facts.method == "HEAD" else page.body, code)


def empty_reply(status: int) -> Reply:
    """A reply without a body."""
    headers = (("cache-control", _NO_STORE), ("x-content-type-options", "nosniff"), ("x-gateway-reason", "local"))
    return Reply(status, headers, b"", "local")


def bare_denial(code: str) -> Reply:
    """A denial that nothing can go wrong with: when the record or the page of another denial has failed."""
    return Reply(_UNAVAILABLE, (("cache-control", _NO_STORE),), b"", code)
