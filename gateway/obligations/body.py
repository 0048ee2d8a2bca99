"""Bodies under obligations: transforms in a row, the bound of a whole body, the headers that describe a body.

Law: a handler sees a whole, unencoded representation or nothing, and what it raises or refuses ends the message. What
described the body before its transform (its length, validators and digests) goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.core.capabilities import BodyMode, Direction
from gateway.core.header_names import spelling, without
from gateway.core.obligations import (
    BodyHandler,
    BodyInfo,
    BodyTransform,
    Headers,
    ObligationContext,
)
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.obligations.steps import ObligationFailed, Step, run

WHOLE_BODY_BYTES = 8 << 20
# What describes the bytes of one representation (RFC 9110 section 8.8, RFC 9530, RFC 9421).
_DESCRIBES_BODY = frozenset({"content-md5", "digest", "content-digest", "repr-digest", "signature", "signature-input"})
_DESCRIBES_RESPONSE = _DESCRIBES_BODY | {"etag", "last-modified", "accept-ranges", "content-length"}
# A part, or "not modified", of a representation that the client never gets; an encoded one nobody can read.
_ASKS_FOR_ANOTHER = frozenset({"accept-encoding", "range", "if-range"})
_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
_PARTIAL_CONTENT = 206


@dataclass(slots=True)
class OpenBody:
    """The transforms of one body in a row: the one `BodyTransform` that an edge drives.

    `mode` "whole": `feed` answers b"" and everything comes from `finish`, so an edge can hold the message's head back
    until then. `changed`: whether what went on may differ from what came; known once `finish` has answered.
    """

    mode: BodyMode
    direction: Direction
    steps: Sequence[tuple[Step[Any], BodyTransform]]
    changed: bool = True
    _whole: bytearray = field(default_factory=bytearray)
    _refusal: Refusal | None = None

    def feed(self, chunk: bytes) -> bytes | Refusal:
        """What can go on, now that `chunk` has arrived. After a Refusal nothing does."""
        if self._refusal is not None:
            return self._refusal
        if self.mode == "whole":
            if len(self._whole) + len(chunk) > WHOLE_BODY_BYTES:
                self._whole.clear()
                return self._end(too_large(self.direction))
            self._whole += chunk
            return b""
        for step, transform in self.steps:
            if not chunk:
                break
            outcome = _transformed(step, transform.feed, chunk)
            if isinstance(outcome, Refusal):
                return self._end(outcome)
            chunk = outcome
        return chunk

    def finish(self) -> bytes | Refusal:
        """What is left to go on, once the body is complete."""
        if self._refusal is not None:
            return self._refusal
        body = bytes(self._whole)
        self._whole.clear()
        rest = body
        for step, transform in self.steps:
            # A whole body is fed even when it is empty: an empty one may be refused.
            fed = _transformed(step, transform.feed, rest) if rest or self.mode == "whole" else b""
            if isinstance(fed, Refusal):
                return self._end(fed)
            last = _transformed(step, transform.finish)
            if isinstance(last, Refusal):
                return self._end(last)
            rest = fed + last
        self.changed = self.mode == "stream" or rest != body
        return rest

    def _end(self, refusal: Refusal) -> Refusal:
        self._refusal = refusal
        return refusal


def too_large(direction: Direction) -> Refusal:
    """The refusal of a whole body over `WHOLE_BODY_BYTES`: the sender's fault in a request, nobody's in a response."""
    if direction == "request":
        return Refusal("body_too_large")
    return Refusal("obligation_failed", "the body is too large to be transformed as a whole")


def open_body(
    steps: Sequence[Step[BodyHandler]], direction: Direction, info: BodyInfo, context: ObligationContext
) -> OpenBody | Refusal:
    """Open the transform of each step, in their order. `steps` are of one direction and not empty."""
    mode: BodyMode = "whole" if any(step.handler.mode == "whole" for step in steps) else "stream"
    if mode == "whole" and info.declared_length is not None and info.declared_length > WHOLE_BODY_BYTES:
        return too_large(direction)
    opened: list[tuple[Step[Any], BodyTransform]] = []
    for step in steps:
        try:
            transform = run(step.kind, step.handler.open, step.params, info, context)
        except ObligationFailed as failure:
            return Refusal("obligation_failed", str(failure))
        if isinstance(transform, Refusal):
            return transform
        if not isinstance(transform, BodyTransform):
            return Refusal("obligation_failed", f"{step.kind}: opened no transform")
        opened.append((step, transform))
    return OpenBody(mode, direction, opened)


def _transformed(step: Step[Any], method: Any, *args: bytes) -> bytes | Refusal:
    try:
        outcome: object = run(step.kind, method, *args)
    except ObligationFailed as failure:
        return Refusal("obligation_failed", str(failure))
    if isinstance(outcome, bytes | Refusal):
        return outcome
    return Refusal("obligation_failed", f"{step.kind}: answered no bytes")


# ---- what a message says of its body ----


def request_info(facts: RequestFacts) -> BodyInfo | Refusal:
    """The body of a request. Refusal for an encoded one (RFC 9110 section 15.5.16) and one of several types."""
    if _is_encoded(facts.headers):
        return Refusal("body_type_unsupported", "the body is encoded")
    content_type = _content_type(facts.headers)
    if content_type is None:
        return Refusal("body_type_unsupported", "several content types")
    return BodyInfo(*content_type, method=facts.method, declared_length=facts.content_length)


def response_info(method: str, status: int, headers: Headers) -> BodyInfo | Refusal:
    """The body of a response. Refusal for a part of a representation, an encoded one and one of several types."""
    if status == _PARTIAL_CONTENT or any(spelling(name) == "content-range" for name, _ in headers):
        return Refusal("obligation_failed", "the response is a part of a representation")
    if _is_encoded(headers):
        return Refusal("obligation_failed", "the response is encoded")
    content_type = _content_type(headers)
    if content_type is None:
        return Refusal("obligation_failed", "several content types")
    lengths = [value for name, value in headers if name == "content-length"]
    length = int(lengths[0]) if len(lengths) == 1 and lengths[0].isascii() and lengths[0].isdigit() else None
    return BodyInfo(*content_type, method=method, status=status, declared_length=length)


def ask_for_whole(headers: Headers, method: str) -> list[tuple[str, str]]:
    """The headers of a request whose response will be transformed: they ask for all of it, unencoded.

    A condition is kept on what changes something: `If-None-Match: *` says "create only" there.
    """
    unwanted = _ASKS_FOR_ANOTHER | _CONDITIONS if method in {"GET", "HEAD"} else _ASKS_FOR_ANOTHER
    return [*without(headers, unwanted), ("accept-encoding", "identity")]


def without_description(headers: Headers, direction: Direction) -> list[tuple[str, str]]:
    """The headers, or trailers, without what describes a body that is no longer this one."""
    return without(headers, _DESCRIBES_RESPONSE if direction == "response" else _DESCRIBES_BODY)


def _is_encoded(headers: Headers) -> bool:
    encodings = [value.strip().lower() for name, value in headers if spelling(name) == "content-encoding"]
    return any(encoding not in {"", "identity"} for encoding in encodings)


def _content_type(headers: Headers) -> tuple[str, str] | None:
    """Media type and charset, lower case; None when the message names several of either."""
    values = [value for name, value in headers if spelling(name) == "content-type"]
    if len(values) > 1:
        return None
    media_type, *parameters = values[0].lower().split(";") if values else [""]
    if "," in media_type:
        return None
    pairs = [parameter.partition("=") for parameter in parameters]
    charsets = [value.strip('" \t') for name, _, value in pairs if name.strip() == "charset"]
    if len(charsets) > 1:
        return None
    return media_type.strip(), charsets[0] if charsets else ""
