"""`max_body`: a smaller limit for the request's body than the route's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.obligations import Headers, Params
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts


class MaxBody:
    """Refuse with `body_too_large` a body that is longer than `limit_bytes`, or whose length is not known before."""

    kind = "max_body"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["limit_bytes"],
        "properties": {"limit_bytes": {"type": "integer", "minimum": 0, "maximum": 1 << 50}},
        "additionalProperties": False,
        "examples": [{"limit_bytes": 1_048_576}],
    }

    def parse(self, params: Params) -> Params:
        """`limit_bytes`, a whole number. Raises ValueError."""
        limit = params.get("limit_bytes")
        if params.keys() != {"limit_bytes"} or type(limit) is not int or not 0 <= limit <= 1 << 50:
            raise ValueError("max_body takes limit_bytes, a whole number")
        return params

    def request_head(self, headers: Headers, params: Params, facts: RequestFacts) -> Headers | Refusal:
        """Compare the announced length; the edge holds a body to what it announced."""
        if facts.content_length is None or facts.content_length > params["limit_bytes"]:
            return Refusal("body_too_large")
        return headers
