"""`mask_json`: replace values in a JSON answer.

Law: what cannot be read in full is not sent. Every doubt raises, and the upstream's body is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from gateway.core.capabilities import BodyMode, Direction
from gateway.core.header_names import spelling
from gateway.core.obligations import BodyInfo, Headers, ObligationContext, Params, WholeBody

_MOST = 100
_EVERY = "*"


class MaskJson:
    """Replace the values at JSON pointers (RFC 6901; `*` stands for every member) and of named fields at any depth.

    `mask` stands for the value, with its last `keep_last` characters when it is at least twice as long.
    """

    kind = "mask_json"
    direction: ClassVar[Direction] = "response"
    mode: ClassVar[BodyMode] = "whole"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "anyOf": [{"required": ["pointers"]}, {"required": ["fields"]}],
        "properties": {
            "pointers": {
                "type": "array",
                "minItems": 1,
                "maxItems": _MOST,
                "items": {"type": "string", "pattern": "^(/([^~/]|~[01])*)+$", "maxLength": 1024},
            },
            "fields": {
                "type": "array",
                "minItems": 1,
                "maxItems": _MOST,
                "items": {"type": "string", "minLength": 1, "maxLength": 256},
            },
            "mask": {"type": "string", "maxLength": 64, "default": "***"},
            "keep_last": {"type": "integer", "minimum": 0, "maximum": 16, "default": 0},
        },
        "additionalProperties": False,
        "examples": [{"fields": ["iban"], "keep_last": 4}, {"pointers": ["/people/*/birthday"]}],
    }

    def parse(self, params: Params) -> Params:
        """Split pointers, the fields as a set, `mask` and `keep_last` with their defaults. Raises ValueError."""
        if params.keys() - {"pointers", "fields", "mask", "keep_last"} or not params.keys() & {"pointers", "fields"}:
            raise ValueError("mask_json takes pointers or fields, mask and keep_last")
        mask, keep_last = params.get("mask", "***"), params.get("keep_last", 0)
        if not isinstance(mask, str) or len(mask) > 64:  # noqa: PLR2004 - as the schema says
            raise ValueError("mask_json: mask is a short string")
        if type(keep_last) is not int or not 0 <= keep_last <= 16:  # noqa: PLR2004 - as the schema says
            raise ValueError("mask_json: keep_last is a small whole number")
        return {
            "pointers": tuple(_tokens(text) for text in _texts(params, "pointers", 1024)),
            "fields": frozenset(_texts(params, "fields", 256)),
            "mask": mask,
            "keep_last": keep_last,
        }

    def response_head(self, headers: Headers, params: Params) -> Headers:
        """Raise ValueError early for a response that cannot be masked."""
        del params
        if any(spelling(name) == "content-type" and not _is_json(value) for name, value in headers):
            raise ValueError("the response is not JSON")
        return headers

    def open(self, params: Params, info: BodyInfo, context: ObligationContext) -> WholeBody:
        """The masking of one document."""
        del context
        is_json = _is_json(f"{info.media_type}; charset={info.charset}")
        return WholeBody(lambda body: _mask(body, params, is_json=is_json))


def _mask(body: bytes, params: Params, *, is_json: bool) -> bytes:
    """The document, masked and written anew. Raises ValueError when it is not UTF-8 JSON."""
    if not body:
        return body
    if not is_json:
        raise ValueError("the body is not JSON")
    root = [json.loads(body.decode("utf-8"), parse_constant=_no_constant)]
    for pointer in params["pointers"]:
        _at(root, ("0", *pointer), params)
    if params["fields"]:
        _named(root, params)
    return json.dumps(root[0], ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _texts(params: Mapping[str, Any], key: str, longest: int) -> Sequence[str]:
    values = params.get(key, ())
    if key in params and (not isinstance(values, list | tuple) or not 1 <= len(values) <= _MOST):
        raise ValueError(f"mask_json: {key} is an array")
    if not all(isinstance(value, str) and 0 < len(value) <= longest for value in values):
        raise ValueError(f"mask_json: {key} are strings")
    return tuple(values)


def _tokens(pointer: str) -> tuple[str, ...]:
    if not pointer.startswith("/") or "~" in pointer.replace("~0", "").replace("~1", ""):
        raise ValueError("mask_json: not a JSON pointer")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/"))


def _is_json(content_type: str) -> bool:
    kind, _, rest = content_type.lower().partition(";")
    charset = rest.partition("charset=")[2].strip('" ') or "utf-8"
    kind = kind.strip()
    return (kind == "application/json" or kind.endswith("+json")) and charset == "utf-8"


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not a JSON number")


def _at(root: list[Any], pointer: tuple[str, ...], params: Mapping[str, Any]) -> None:
    holders: list[Any] = [root]
    for depth, token in enumerate(pointer):
        last = depth == len(pointer) - 1
        below: list[Any] = []
        for holder in holders:
            for key in _keys(holder, token):
                if last:
                    holder[key] = _masked(holder[key], params)
                else:
                    below.append(holder[key])
        holders = below


def _keys(holder: Any, token: str) -> Sequence[Any]:
    if isinstance(holder, dict):
        return list(holder) if token == _EVERY else [token] if token in holder else []
    if not isinstance(holder, list):
        return []
    if token == _EVERY:
        return range(len(holder))
    return [int(token)] if token.isascii() and token.isdigit() and int(token) < len(holder) else []


def _named(root: list[Any], params: Mapping[str, Any]) -> None:
    open_: list[Any] = [root]
    while open_:
        holder = open_.pop()
        for key in _keys(holder, _EVERY):
            if isinstance(holder, dict) and key in params["fields"]:
                holder[key] = _masked(holder[key], params)
            elif isinstance(holder[key], dict | list):
                open_.append(holder[key])


def _masked(value: Any, params: Mapping[str, Any]) -> str:
    mask: str = params["mask"]
    keep: int = params["keep_last"]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return mask
    text = str(value)
    return mask + text[-keep:] if keep and len(text) >= 2 * keep else mask
