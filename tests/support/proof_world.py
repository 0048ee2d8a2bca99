"""Somebody who holds a key and proves it, rightly or in any wrong way."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
WEAK_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=1024)  # noqa: S505  (to be refused)


def b64(raw: bytes | str | dict[str, Any]) -> str:
    if isinstance(raw, dict):
        raw = json.dumps(raw)
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=").decode()


class Holder:
    """A key of one kind: "ES256", "EdDSA", "RS256" or "weak" (RSA with 1024 bits)."""

    def __init__(self, kind: str = "ES256") -> None:
        self.algorithm = "RS256" if kind == "weak" else kind
        self.private: Any = {
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
            "RS256": lambda: RSA,
            "weak": lambda: WEAK_RSA,
        }[kind]()
        self._handler = jwt.PyJWS().get_algorithm_by_name(self.algorithm)
        found = self._handler.to_jwk(self.private.public_key(), as_dict=True)
        self.jwk = {name: found[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in found}

    def private_jwk(self) -> dict[str, Any]:
        found = self._handler.to_jwk(self.private, as_dict=True)
        return {name: value for name, value in found.items() if name != "key_ops"}

    def sign(self, header: dict[str, Any] | str, claims: dict[str, Any] | str) -> str:
        """A JWS with exactly this header and payload, whatever they say; None members are left out."""
        parts = [
            {name: value for name, value in part.items() if value is not None} if isinstance(part, dict) else part
            for part in (header, claims)
        ]
        message = ".".join(map(b64, parts))
        return f"{message}.{b64(self._handler.sign(message.encode(), self.private))}"
