"""`require_json_body`: refuse a request whose body is not JSON (RFC 8259) of bounded size and depth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from gateway.core.capabilities import BodyMode, Direction
from gateway.core.obligations import BodyInfo, Headers, ObligationContext, Params, WholeBody
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts

_NEEDS_BODY = frozenset({"POST", "PUT", "PATCH"})
_DEEPEST = 100
_LARGEST_BYTES = 8 << 20


class RequireJsonBody:
    """Refuse a body that two parsers could read differently, that is too deep or too long; what passes is unchanged.

    It is I-JSON (RFC 7493): UTF-8, no member twice, no number that is none, no lone surrogate. POST, PUT and PATCH need
    a body, the other methods may come without one.
    """

    kind = "require_json_body"
    direction: ClassVar[Direction] = "request"
    mode: ClassVar[BodyMode] = "whole"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "max_depth": {"type": "integer", "minimum": 1, "maximum": _DEEPEST, "default": 32},
            "max_bytes": {"type": "integer", "minimum": 2, "maximum": _LARGEST_BYTES, "default": 1 << 20},
        },
        "additionalProperties": False,
        "examples": [{}, {"max_depth": 8, "max_bytes": 65_536}],
    }

    def parse(self, params: Params) -> Params:
        """`max_depth` and `max_bytes` with their defaults. Raises ValueError."""
        if params.keys() - {"max_depth", "max_bytes"}:
            raise ValueError("require_json_body takes max_depth and max_bytes")
        depth, size = params.get("max_depth", 32), params.get("max_bytes", 1 << 20)
        if type(depth) is not int or not 1 <= depth <= _DEEPEST:
            raise ValueError("require_json_body: max_depth is a small whole number")
        if type(size) is not int or not 2 <= size <= _LARGEST_BYTES:  # noqa: PLR2004 - as the schema says
            raise ValueError("require_json_body: max_bytes is a whole number of up to 8 MiB")
        return {"max_depth": depth, "max_bytes": size}

    def request_head(self, headers: Headers, params: Params, facts: RequestFacts) -> Headers | Refusal:
        """Refuse at once what the head shows: no body where one is needed, and one that is too long."""
        if facts.content_length == 0 and facts.method in _NEEDS_BODY:
            return Refusal("body_invalid", "no body")
        if facts.content_length is not None and facts.content_length > params["max_bytes"]:
            return Refusal("body_too_large")
        return headers

    def open(self, params: Params, info: BodyInfo, context: ObligationContext) -> WholeBody | Refusal:
        """The check of one body; `body_type_unsupported` where the head does not say that it is JSON in UTF-8."""
        del context
        is_json = info.media_type == "application/json" or info.media_type.endswith("+json")
        if not is_json or info.charset not in {"", "utf-8"}:
            return Refusal("body_type_unsupported", "the media type is not JSON")
        return WholeBody(lambda body: _check(body, params["max_depth"], params["max_bytes"]))


def _check(body: bytes, max_depth: int, max_bytes: int) -> bytes | Refusal:
    """The body as it came, or a refusal."""
    if len(body) > max_bytes:
        return Refusal("body_too_large")
    try:
        document = json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_number
        )
        if b"\\u" in body:
            # A lone surrogate, which comes as an escape alone, has no UTF-8 and raises.
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as problem:
        return Refusal("body_invalid", type(problem).__name__)
    return Refusal("body_invalid", "too deep") if _is_deeper(document, max_depth) else body


def _is_deeper(document: Any, max_depth: int) -> bool:
    """Whether arrays and objects nest deeper than that; a scalar has depth 0."""
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(max_depth):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
    return bool(level)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not a JSON number")
    return value


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not a JSON number")
