"""`read_only`: the caller may look and not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.obligations import Headers, Params
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class ReadOnly:
    """Refuse with `read_only` whatever is not GET, HEAD or OPTIONS, and every WebSocket: it can carry changes."""

    kind = "read_only"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "examples": [{}],
    }

    def parse(self, params: Params) -> Params:
        """No parameters. Raises ValueError for any."""
        if params:
            raise ValueError("read_only takes no parameters")
        return params

    def request_head(self, headers: Headers, params: Params, facts: RequestFacts) -> Headers | Refusal:
        """Refuse a change; a method that a header would make of it is refused before any policy is asked."""
        del params
        if facts.method not in _SAFE or facts.protocol == "websocket":
            return Refusal("read_only")
        return headers
