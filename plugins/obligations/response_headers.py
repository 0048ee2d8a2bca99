"""`response_headers`: harden what the browser is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.header_names import is_field, is_framing, is_ours, spelling, without
from gateway.core.obligations import Headers, Params

# Two of these are both obeyed, so ours stands beside the service's and can only take more away.
_ADDED = frozenset({"content-security-policy", "permissions-policy", "clear-site-data"})
_HARDENING = _ADDED | {
    "cache-control",
    "content-disposition",
    "content-security-policy-report-only",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "referrer-policy",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "x-permitted-cross-domain-policies",
    "x-robots-tag",
}
# Without these a body is read in another way than it was meant.
_MEANING = frozenset({"content-type", "content-encoding", "content-range", "www-authenticate", "vary"})
_MOST = 50


class ResponseHeaders:
    """Set headers that harden (`set`) and remove headers that tell or open too much (`remove`).

    What hardens cannot be removed, what opens (CORS, cookies) cannot be set: an obligation can only tighten.
    """

    kind = "response_headers"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "minProperties": 1,
        "properties": {
            "set": {
                "type": "object",
                "maxProperties": _MOST,
                "propertyNames": {"enum": sorted(_HARDENING)},
                "additionalProperties": {"type": "string", "maxLength": 8192},
            },
            "remove": {
                "type": "array",
                "maxItems": _MOST,
                "items": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,127}$"},
            },
        },
        "additionalProperties": False,
        "examples": [{"set": {"x-frame-options": "DENY"}, "remove": ["server"]}],
    }

    def parse(self, params: Params) -> Params:
        """`set` and `remove`, at least one of them. Raises ValueError."""
        wanted, unwanted = params.get("set", {}), params.get("remove", [])
        if not params or params.keys() - {"set", "remove"}:
            raise ValueError("response_headers takes set and remove")
        shaped = isinstance(wanted, Mapping) and isinstance(unwanted, list | tuple)
        if not shaped or len(wanted) > _MOST or len(unwanted) > _MOST:
            raise ValueError("response_headers takes an object to set and an array to remove")
        for name, value in wanted.items():
            if name not in _HARDENING or not isinstance(value, str) or not is_field(name, value):
                raise ValueError("response_headers may not set this header to this value")
        for name in unwanted:
            if not isinstance(name, str) or not is_field(name, "") or name != spelling(name):
                raise ValueError("response_headers removes lower-case names")
            if name in _HARDENING or name in _MEANING or is_framing(name) or is_ours(name):
                raise ValueError("response_headers may not remove this header")
        return {"set": wanted, "remove": unwanted}

    def response_head(self, headers: Headers, params: Params) -> Headers:
        """Remove, then set."""
        replaced = [*params["remove"], *(params["set"].keys() - _ADDED)]
        return [*without(headers, replaced), *params["set"].items()]
