"""`redact_text`: replace texts and well-known patterns in a response as it streams.

Law: the result does not depend on where the network cuts the body. What may still become a match is held back until the
bytes after it are there; that is never more than the longest match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from gateway.core.capabilities import BodyMode, Direction
from gateway.core.obligations import BodyInfo, BodyTransform, ObligationContext, Params

_MOST = 100
_MASK = re.compile(r"[A-Za-z0-9*#_. \[\]-]{0,64}\Z")
_TYPES = frozenset({"application/javascript", "application/json", "application/x-ndjson", "application/xml"})
# UTF-8 text has none of these bytes, UTF-16 and UTF-32 have.
_NOT_UTF8_TEXT = re.compile(rb"[\x00\xfe\xff]")
_DIGITS, _UPPER = b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORD = _DIGITS + _UPPER + _UPPER.lower()


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A pattern of `regex` with the bytes that a match is made of, and its longest match.

    It looks at one byte before and one byte after the match at most: whether it matches at a place is known as soon as
    a byte that is not of `alphabet` follows, or `longest` bytes and one more.
    """

    regex: bytes
    alphabet: bytes
    longest: int


_PATTERNS: Mapping[str, _Pattern] = {
    "card_number": _Pattern(rb"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])", _DIGITS + b" -", 37),
    "email": _Pattern(
        rb"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}", _WORD + b"._%+-@", 64 + 1 + 190
    ),
    "iban": _Pattern(
        rb"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])", _UPPER + _DIGITS + b" ", 4 + 60
    ),
    "jwt": _Pattern(
        rb"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{1,4000}\.[A-Za-z0-9_-]{1,8000}\.[A-Za-z0-9_-]{0,2000}",
        _WORD + b"_-.",
        3 + 4000 + 1 + 8000 + 1 + 2000,
    ),
}


class RedactText:
    """Replace literal `texts` (case counts) and named `patterns` by `mask`, in UTF-8 text, HTML, JSON and the like.

    It sees the bytes as the service sends them: a text that is spelt in another way (an escape, an entity) stays.
    """

    kind = "redact_text"
    direction: ClassVar[Direction] = "response"
    mode: ClassVar[BodyMode] = "stream"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "anyOf": [{"required": ["texts"]}, {"required": ["patterns"]}],
        "properties": {
            "texts": {
                "type": "array",
                "minItems": 1,
                "maxItems": _MOST,
                "items": {"type": "string", "minLength": 1, "maxLength": 64},
            },
            "patterns": {
                "type": "array",
                "minItems": 1,
                "maxItems": len(_PATTERNS),
                "items": {"enum": sorted(_PATTERNS)},
            },
            "mask": {"type": "string", "pattern": r"^[A-Za-z0-9*#_. \[\]-]{0,64}$", "default": "***"},
        },
        "additionalProperties": False,
        "examples": [{"texts": ["Project Nightingale", "DE1"]}, {"patterns": ["iban", "email"], "mask": "[redacted]"}],
    }

    def parse(self, params: Params) -> Params:
        """`texts` and `patterns` as tuples, `mask` with its default. Raises ValueError."""
        if params.keys() - {"texts", "patterns", "mask"} or not params.keys() & {"texts", "patterns"}:
            raise ValueError("redact_text takes texts or patterns, and mask")
        mask = params.get("mask", "***")
        if not isinstance(mask, str) or not _MASK.match(mask):
            raise ValueError("redact_text: mask means nothing in HTML, JSON or a script")
        texts, patterns = _strings(params, "texts", _MOST), _strings(params, "patterns", len(_PATTERNS))
        if any(len(text) > 64 for text in texts):  # noqa: PLR2004 - as the schema says
            raise ValueError("redact_text: texts are short")
        if not set(patterns) <= _PATTERNS.keys():
            raise ValueError(f"redact_text: patterns are of {sorted(_PATTERNS)}")
        try:
            encoded = tuple(text.encode("utf-8") for text in texts)
        except UnicodeEncodeError:
            raise ValueError("redact_text: texts are Unicode") from None
        return {"texts": encoded, "patterns": patterns, "mask": mask.encode("ascii")}

    def open(self, params: Params, info: BodyInfo, context: ObligationContext) -> BodyTransform:
        """The redaction of one body. Raises ValueError when it is not text in UTF-8.

        A body without a type may still be an empty one (a redirect).
        """
        del context
        is_text = info.media_type.startswith("text/") or info.media_type.endswith(("+json", "+xml"))
        is_utf8_text = (is_text or info.media_type in _TYPES) and info.charset in {"", "utf-8", "us-ascii"}
        if not is_utf8_text and (info.media_type or info.declared_length):
            raise ValueError("the body is not text in UTF-8")
        matcher = _matcher(params["texts"], params["patterns"])
        return _Redaction(matcher, params["mask"], is_readable=is_utf8_text)


@dataclass(frozen=True, slots=True)
class _Matcher:
    """Finds what is to be replaced; `beginnings` are all proper beginnings of the texts, `longest_text` in bytes."""

    regex: re.Pattern[bytes]
    patterns: tuple[_Pattern, ...]
    beginnings: frozenset[bytes]
    longest_text: int

    def undecided(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a match."""
        longest = 0
        for pattern in self.patterns:
            end = data[-pattern.longest :]
            longest = max(longest, len(end) - len(end.rstrip(pattern.alphabet)))
        for size in range(min(self.longest_text - 1, len(data)), longest, -1):
            if data[-size:] in self.beginnings:
                return size
        return longest


@lru_cache(maxsize=64)
def _matcher(texts: tuple[bytes, ...], patterns: tuple[str, ...]) -> _Matcher:
    # Of two texts that begin alike the longer one counts.
    alternatives = [re.escape(text) for text in sorted(set(texts), key=lambda text: (-len(text), text))]
    chosen = tuple(_PATTERNS[name] for name in sorted(set(patterns)))
    return _Matcher(
        regex=re.compile(b"|".join([*alternatives, *(pattern.regex for pattern in chosen)])),
        patterns=chosen,
        beginnings=frozenset(text[:size] for text in texts for size in range(1, len(text))),
        longest_text=max(map(len, texts), default=0),
    )


class _Redaction:
    """One body. `_data` is what has not gone out, after one byte that has (where there is one): `_start` bytes."""

    __slots__ = ("_data", "_is_readable", "_mask", "_matcher", "_start")

    def __init__(self, matcher: _Matcher, mask: bytes, *, is_readable: bool) -> None:
        self._is_readable = is_readable
        self._matcher = matcher
        self._mask = mask
        self._data = b""
        self._start = 0

    def feed(self, chunk: bytes) -> bytes:
        """What is decided. Raises ValueError for bytes that UTF-8 text does not have."""
        if not self._is_readable or _NOT_UTF8_TEXT.search(chunk):
            raise ValueError("the body is not text in UTF-8")
        self._data += chunk
        return self._replace(len(self._data) - self._matcher.undecided(self._data[self._start :]))

    def finish(self) -> bytes:
        """The rest."""
        return self._replace(len(self._data))

    def _replace(self, decided: int) -> bytes:
        """What lies before `decided` as it goes out, and the whole of a match that begins there."""
        data, position = self._data, self._start
        pieces: list[bytes] = []
        while (match := self._matcher.regex.search(data, position)) is not None and match.start() < decided:
            pieces += (data[position : match.start()], self._mask)
            position = match.end()
        if position < decided:
            pieces.append(data[position:decided])
            position = decided
        self._data = data[max(0, position - 1) :]
        self._start = min(1, position)
        return b"".join(pieces)


def _strings(params: Params, key: str, most: int) -> tuple[str, ...]:
    values = params.get(key, ())
    if key in params and (not isinstance(values, list | tuple) or not 1 <= len(values) <= most):
        raise ValueError(f"redact_text: {key} is an array")
    if not all(isinstance(value, str) and value for value in values):
        raise ValueError(f"redact_text: {key} are strings")
    return tuple(values)
