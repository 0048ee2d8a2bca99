"""JSON from outside, read in one way only: UTF-8, no duplicate members, no NaN, bounded depth and size (RFC 8259)."""

from __future__ import annotations

import json
import math
from typing import Any


class _Ambiguous(ValueError):
    """Two parsers could read this document in two ways."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Ambiguous
    return members


def _constant(_: str) -> None:
    raise _Ambiguous


def read_object(raw: bytes, *, depth: int = 8, members: int = 2_000) -> dict[str, Any] | None:
    """The JSON object in `raw`; None for anything else.

    `depth` bounds the nesting (the object itself is 1), `members` all members and items together. Every string in the
    answer can be encoded as UTF-8 and every number is finite. Never raises.
    """
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_members, parse_constant=_constant)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and _bounded(document, depth, members) else None


def _bounded(found: dict[str, Any], depth: int, members: int) -> bool:
    level: list[Any] = [found]
    for remaining in range(depth, -1, -1):
        below: list[Any] = []
        for value in level:
            if not remaining and isinstance(value, (dict, list)):
                return False
            if isinstance(value, dict):
                below.extend(value.values())
                members -= len(value)
                if not all(map(_encodable, value)):
                    return False
            elif isinstance(value, list):
                below.extend(value)
                members -= len(value)
            elif isinstance(value, str):
                if not _encodable(value):
                    return False
            elif isinstance(value, float) and not math.isfinite(value):
                return False
        if members < 0:
            return False
        if not below:
            return True
        level = below
    return False


def _encodable(text: str) -> bool:
    """Whether there is no lone surrogate in `text`: such a string could not be written anywhere."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
