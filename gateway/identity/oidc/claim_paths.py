"""Claims by path: where a provider keeps roles and names, and in which shape (list, text, map).

A path is a claim's whole name, or the names of nested members with a dot between them; `*` is every member.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from unicodedata import category

MAX_TEXT = 1_024
_MAX_VALUES = 4_096
# Control characters, surrogates, unassigned code points and line ends are in nobody's name; nor is what turns the
# direction of the text around it. Joiners, no-break spaces and emoji are.
_NO_NAME = frozenset({"Cc", "Cs", "Cn", "Co", "Zl", "Zp"})
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def values_at(claims: Mapping[str, Any], path: str) -> Iterator[Any]:
    """What stands at a path: one value, several with `*`, none where there is nothing."""
    if path in claims:
        yield claims[path]
        return
    values: list[Any] = [claims]
    for member in path.split("."):
        values = [entry for value in values for entry in _members(value, member)]
    yield from values


def texts_at(claims: Mapping[str, Any], path: str) -> Iterator[str]:
    """The texts at a path: a list's members, a map's keys, one text alone. Empty and odd members are skipped."""
    count = 0
    for value in values_at(claims, path):
        for entry in value if isinstance(value, (list, dict)) else (value,):
            if isinstance(entry, str) and is_name(entry) and count < _MAX_VALUES:
                count += 1
                yield entry


def text_at(claims: Mapping[str, Any], path: str) -> str:
    """The first text at a path that can be shown, "" when there is none."""
    return next((value for value in values_at(claims, path) if isinstance(value, str) and is_name(value)), "")


def is_name(value: str) -> bool:
    """Whether a text can be shown as a name: letters of any script, joiners, spaces and emoji, but no controls."""
    if not 0 < len(value) <= MAX_TEXT or value.isspace():
        return False
    return value.isprintable() or not any(letter in _BIDI or category(letter) in _NO_NAME for letter in value)


def is_true(value: object) -> bool:
    """A boolean claim; some providers (Amazon Cognito, AD FS) write it as text."""
    return value is True or value == "true"


def _members(value: Any, member: str) -> Iterator[Any]:
    if isinstance(value, dict):
        if member == "*":
            yield from value.values()
        elif member in value:
            yield value[member]
