"""`read_only`: the caller may look and not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class ReadOnly:
    """Refuse with `read_only` whatever is not GET, HEAD or OPTIONS, and every WebSocket: it can carry changes."""

    kind = "read_only"
    phases = frozenset({"request"})
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "examples": [{}],
    }

    def parse(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """No parameters. Raises ValueError for any."""
        if params:
            raise ValueError("read_only takes no parameters")
        return params

    def request(self, headers: list[tuple[str, str]], params: Mapping[str, Any], facts: RequestFacts) -> Refusal | None:
        """Refuse a change; a method that a header would make of it is refused before any policy is asked."""
        del headers, params
        if facts.method not in _SAFE or facts.protocol == "websocket":
            return Refusal("read_only")
        return None

    def response(self, headers: list[tuple[str, str]], params: Mapping[str, Any]) -> None:
        """Not a phase of this plugin."""
        raise NotImplementedError

    def body(self, content_type: str, body: bytes, params: Mapping[str, Any]) -> bytes:
        """Not a phase of this plugin."""
        raise NotImplementedError
