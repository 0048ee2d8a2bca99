"""`no_store`: nothing on the way keeps the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.header_names import without
from gateway.core.obligations import Headers, Params

_CACHING = ("cache-control", "expires", "pragma", "age", "surrogate-control", "cdn-cache-control")


class NoStore:
    """Replace whatever the service says about caching by `Cache-Control: no-store` (RFC 9111 section 5.2.2.5)."""

    kind = "no_store"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "examples": [{}],
    }

    def parse(self, params: Params) -> Params:
        """No parameters. Raises ValueError for any."""
        if params:
            raise ValueError("no_store takes no parameters")
        return params

    def response_head(self, headers: Headers, params: Params) -> Headers:
        """Set the one header, drop its rivals."""
        del params
        return [*without(headers, _CACHING), ("cache-control", "no-store")]
