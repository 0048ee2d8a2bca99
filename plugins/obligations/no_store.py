"""`no_store`: nothing on the way keeps the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.header_names import drop
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts

_CACHING = ("cache-control", "expires", "pragma", "age", "surrogate-control", "cdn-cache-control")


class NoStore:
    """Replace whatever the service says about caching by `Cache-Control: no-store` (RFC 9111 section 5.2.2.5)."""

    kind = "no_store"
    phases = frozenset({"response"})
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "examples": [{}],
    }

    def parse(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """No parameters. Raises ValueError for any."""
        if params:
            raise ValueError("no_store takes no parameters")
        return params

    def request(self, headers: list[tuple[str, str]], params: Mapping[str, Any], facts: RequestFacts) -> Refusal | None:
        """Not a phase of this plugin."""
        raise NotImplementedError

    def response(self, headers: list[tuple[str, str]], params: Mapping[str, Any]) -> None:
        """Set the one header, drop its rivals."""
        del params
        drop(headers, _CACHING)
        headers.append(("cache-control", "no-store"))

    def body(self, content_type: str, body: bytes, params: Mapping[str, Any]) -> bytes:
        """Not a phase of this plugin."""
        raise NotImplementedError
