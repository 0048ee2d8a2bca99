"""Obligations (XACML 3.0, section 7.18): the contract of the plugins that enforce them.

A plugin is one class with a kind, a JSON Schema, `parse`, and the capabilities it implements: each is a Protocol of one
method. It can only tighten. It is pure: whatever it needs beside the message is in `ObligationContext`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from gateway.core.capabilities import BodyMode, Direction
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts

type Headers = Sequence[tuple[str, str]]
type Params = Mapping[str, Any]
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_KEYS: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ObligationContext:
    """Whom a body is for, and what a handler may need: no handler does I/O of its own.

    `subject` is the account (`subject_key`), "" for nobody; `keys` are secret keys by name; `tokens` maps a token that
    stands for a value to that value.
    """

    subject: str = ""
    department: str = ""
    keys: Mapping[str, bytes] = field(default=_NO_KEYS, repr=False)
    tokens: Mapping[str, str] = field(default=_NOTHING, repr=False)


@dataclass(frozen=True, slots=True)
class BodyInfo:
    """A body before its first byte. `media_type` and `charset` are lower case, "" where the message names none.

    `content_encoding` is "identity": an encoded body is refused before a handler sees it. `status` is None for a
    request's body, `declared_length` for a body of unknown length (bytes).
    """

    media_type: str
    charset: str
    method: str
    status: int | None = None
    content_encoding: str = "identity"
    declared_length: int | None = None


class ObligationHandler(Protocol):
    """An obligation plugin: it enforces one kind of obligation through the capabilities that it implements."""

    @property
    def kind(self) -> str:
        """The kind of obligation, as a policy names it."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """The JSON Schema of the parameters, with at least one example."""

    def parse(self, params: Params) -> Params:
        """The validated parameters. Raises ValueError when the policy's answer does not fit."""


@runtime_checkable
class RequestHeadHandler(Protocol):
    """Enforces an obligation on the head of a request."""

    def request_head(self, headers: Headers, params: Params, facts: RequestFacts) -> Headers | Refusal:
        """The headers that go upstream (lower-case names), or a refusal."""


@runtime_checkable
class ResponseHeadHandler(Protocol):
    """Enforces an obligation on the head of a response."""

    def response_head(self, headers: Headers, params: Params) -> Headers:
        """The response's headers as they go out (lower-case names). Raising drops the response."""


@runtime_checkable
class BodyTransform(Protocol):
    """One body under way. Whatever it raises, and a Refusal, ends the message: no part of it looks whole."""

    def feed(self, chunk: bytes) -> bytes | Refusal:
        """What can go on, now that `chunk` has arrived; b"" while nothing can."""

    def finish(self) -> bytes | Refusal:
        """What is left to go on. The last call."""


@runtime_checkable
class BodyHandler(Protocol):
    """Enforces an obligation on the body of a request or of a response.

    In mode "stream" the chunks come as the network cuts them, and the result must not depend on the cuts. In mode
    "whole" `feed` is called once, with the whole body.
    """

    @property
    def direction(self) -> Direction:
        """Whose body it is."""

    @property
    def mode(self) -> BodyMode:
        """How the body comes."""

    def open(self, params: Params, info: BodyInfo, context: ObligationContext) -> BodyTransform | Refusal:
        """The transform of one body, or a refusal. Raising is `obligation_failed`."""


@dataclass(frozen=True, slots=True)
class WholeBody:
    """The `BodyTransform` of a handler in mode "whole" whose work is one function of the whole body."""

    function: Callable[[bytes], bytes | Refusal]

    def feed(self, chunk: bytes) -> bytes | Refusal:
        """The function's answer."""
        return self.function(chunk)

    def finish(self) -> bytes | Refusal:
        """Nothing is left."""
        return b""
