"""Header names: hop-by-hop fields, the gateway's own, those that carry credentials or framing (RFC 9110 section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from gateway.core.header_families import NAMES, PREFIXES

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "proxy-authenticate",
        "proxy-authorization",
        "http2-settings",
    }
)
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]{1,256}\Z")
_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?\Z")
_VALUE_LIMIT = 8192
_FRAMING = HOP_BY_HOP | {"host", "content-length", "expect"}
_CREDENTIALS = frozenset({"authorization", "cookie", "dpop"})
_UNLIKE_A_NAME = re.compile(r"[^a-z0-9]")
_OURS = frozenset(
    {
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-original-uri",
        "proxy",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "cf-connecting-ip",
        "x-host",
        "remote-user",
        "x-remote-user",
        "x-authenticated-user",
    }
)
# What other proxies tell their services under, and some services believe from anybody.
_OUR_PREFIXES = (
    *("x-gateway-", "x-forwarded-", "x-original-", "x-envoy-", "x-auth-request-", "x-webauth-"),
    *("client-cert", "ssl-client-", "x-ssl-client-", "x-client-cert"),
)
# What frames a message or proves who sends it, looked for in spellings that only some servers fold into it.
_CARRIES = HOP_BY_HOP | {"host", "content-length", "expect", "cookie", "authorization", "dpop"}
# What the gateway reads of a request beside that.
_READ = {
    *("content-type", "content-encoding", "content-range", "accept", "accept-encoding", "range", "if-range"),
    *("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "origin", "referer", "user-agent"),
    *("x-requested-with", "destination", "depth", "overwrite", "if", "x-copy-from", "x-amz-copy-source"),
    *("x-goog-copy-source", "x-oss-copy-source", "x-cos-copy-source", "x-obs-copy-source", "x-bce-copy-source"),
    *("x-tos-copy-source", "x-ms-copy-source", "x-ms-rename-source"),
    *("access-control-request-method"),
    *("access-control-request-headers", "access-control-request-private-network"),
}
_READ_PREFIXES = ("sec-",)
# By which some servers let one method become another, after it was judged.
_OVERRIDES = frozenset(
    {
        *("x-http-method-override", "x-http-method", "x-method-override", "x-method", "x-override-method"),
        *("http-method-override", "http-method", "method-override", "x-http-override", "x-http-verb", "x-rest-method"),
        *("x-http-verb-override", "x-verb-override", "x-request-method", "x-rewrite-method", "x-http-method-overide"),
    }
)


def is_field(name: str, value: str) -> bool:
    """Whether this is a field that every parser reads in one way: a lower-case token and printable ASCII."""
    return _NAME.match(name) is not None and len(value) <= _VALUE_LIMIT and _VALUE.match(value) is not None


def is_framing(name: str) -> bool:
    """Whether the header carries the message itself: hop-by-hop, Host, Content-Length, Expect."""
    return spelling(name) in _FRAMING


def is_reserved(name: str) -> bool:
    """Whether only the gateway or the client may say this upstream: framing, credentials, our own headers."""
    name = spelling(name)
    return name in _FRAMING or name in _CREDENTIALS or is_ours(name)


def without(headers: Sequence[tuple[str, str]], names: Iterable[str]) -> list[tuple[str, str]]:
    """The headers without any copy of these, in any spelling."""
    unwanted = {spelling(name) for name in names}
    return [field for field in headers if spelling(field[0]) not in unwanted]


@lru_cache(maxsize=4096)
def is_ours(name: str) -> bool:
    """Whether `name`, in any spelling, is a header that only the gateway may set, or one in disguise that nobody may.

    Servers that hand headers to a program as variables read `X.Real.IP`, `X_Real_IP` and `X-Real-IP` alike.
    """
    plain = name.lower()
    folded = spelling(plain)
    ours = folded in _OURS or folded in _OVERRIDES or folded.startswith(_OUR_PREFIXES)
    return ours or (folded != plain and folded in _CARRIES)


@lru_cache(maxsize=4096)
def is_asserted(name: str) -> bool:
    """Whether `name`, in any spelling, is what a proxy asserts to its services: who or where a client is, or else."""
    folded = spelling(name)
    return folded in NAMES or folded.startswith(PREFIXES)


@lru_cache(maxsize=4096)
def is_disguised(name: str, judged: frozenset[str] | None) -> bool:
    """Whether `name` is another spelling of a header that policy or the gateway reads, so that it would not be seen.

    `judged`: the lower-case names that policy reads, None for every one.
    """
    folded = spelling(name)
    if folded != name and (judged is None or folded in _READ or folded.startswith(_READ_PREFIXES)):
        return True
    return judged is not None and name not in judged and any(folded == spelling(other) for other in judged)


def is_stripped(name: str, patterns: Iterable[str]) -> bool:
    """Whether `name`, in any spelling, is one of these lower-case names; a `*` at the end of one is any rest."""
    folded = spelling(name)
    return any(
        folded.startswith(spelling(pattern[:-1])) if pattern.endswith("*") else folded == spelling(pattern)
        for pattern in patterns
    )


def is_override(name: str) -> bool:
    """Whether a header names another method than the request line, in any spelling."""
    return spelling(name) in _OVERRIDES


def spelling(name: str) -> str:
    """The one name for every spelling that a server may fold into it: lower case, hyphens."""
    return _UNLIKE_A_NAME.sub("-", name.lower())
