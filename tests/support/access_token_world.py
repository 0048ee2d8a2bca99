from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt

from gateway.core.reasons import REASONS, Refusal
from gateway.core.subject import Identity
from gateway.demo.idp.token_issuer import Key
from tests.support.issuer_world import Reading

Make = Callable[..., Reading]


def b64(raw: bytes | str | dict[str, Any]) -> str:
    if isinstance(raw, dict):
        raw = json.dumps(raw)
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=").decode()


def signed(key: Key, header: dict[str, Any] | str, payload: dict[str, Any] | str) -> str:
    """A token with exactly this header and payload, whatever they say, and a good RS256 signature."""
    message = f"{b64(header)}.{b64(payload)}"
    signature = jwt.PyJWS().get_algorithm_by_name("RS256").sign(message.encode(), key.private)
    return f"{message}.{b64(signature)}"


def outcome(found: Any) -> str:
    if isinstance(found, Refusal):
        assert found.reason in REASONS
        return found.reason
    assert isinstance(found, Identity)
    return "ok"


def header(key: Key, **changes: Any) -> dict[str, Any]:
    return {"alg": "RS256", "typ": "JWT", "kid": key.kid} | changes
