"""Which header fields an obligation may touch, and whether a field is well formed (RFC 9110 section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.core.request import HOP_BY_HOP, is_ours, spelling

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]{1,256}\Z")
_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?\Z")
_VALUE_LIMIT = 8192
_FRAMING = HOP_BY_HOP | {"host", "content-length", "expect"}
_CREDENTIALS = frozenset({"authorization", "cookie", "dpop"})


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


def drop(headers: list[tuple[str, str]], names: Iterable[str]) -> None:
    """Remove every copy of these headers in place, in every spelling."""
    unwanted = {spelling(name) for name in names}
    headers[:] = [field for field in headers if spelling(field[0]) not in unwanted]
