"""`request_headers`: tell the service something that policy knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.header_names import is_field, is_reserved, spelling, without
from gateway.core.obligations import Headers, Params
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts

_MOST = 50


class RequestHeaders:
    """Set headers upstream; the client's own copies go, in every spelling.

    Credentials, framing and the gateway's own headers cannot be set.
    """

    kind = "request_headers"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["set"],
        "properties": {
            "set": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": _MOST,
                "propertyNames": {"pattern": "^[a-z0-9][a-z0-9-]{0,127}$"},
                "additionalProperties": {"type": "string", "maxLength": 8192},
            }
        },
        "additionalProperties": False,
        "examples": [{"set": {"x-department": "sales"}}],
    }

    def parse(self, params: Params) -> Params:
        """`set`, an object of names and values. Raises ValueError."""
        wanted = params.get("set")
        if params.keys() != {"set"} or not isinstance(wanted, Mapping) or not 1 <= len(wanted) <= _MOST:
            raise ValueError("request_headers takes set, an object of header names and values")
        for name, value in wanted.items():
            if not isinstance(name, str) or not isinstance(value, str) or not is_field(name, value):
                raise ValueError("request_headers takes lower-case names and printable ASCII values")
            if is_reserved(name) or name != spelling(name):
                raise ValueError("request_headers may not set this header")
        return params

    def request_head(self, headers: Headers, params: Params, facts: RequestFacts) -> Headers | Refusal:
        """Replace every copy."""
        del facts
        return [*without(headers, params["set"]), *params["set"].items()]
