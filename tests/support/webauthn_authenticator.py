"""A security key in software (W3C Web Authentication): real keys, real signatures, and every way to misbehave."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40


def b64(value: bytes) -> str:
    return urlsafe_b64encode(value).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "==")


@dataclass
class Authenticator:
    """One ES256 credential, as a browser at `origin` would use it. `flags` are those of every answer."""

    origin: str = "https://gw.example.com"
    flags: int = UP | UV
    sign_count: int = 0
    counts: bool = True
    client: dict[str, Any] = field(default_factory=dict)
    rp_id: str | None = None
    id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    user: bytes = b""

    def create(
        self,
        show: Mapping[str, Any],
        *,
        fmt: str = "none",
        statement: Mapping[str, Any] | None = None,
        cose: Callable[[dict[int, Any]], object] = lambda key: key,
    ) -> dict[str, Any]:
        """The answer to creation options, `credential.toJSON()`."""
        options = show["publicKey"]
        assert options["attestation"] == "none"
        assert options["authenticatorSelection"]["userVerification"] == "required"
        assert {"type": "public-key", "alg": -7} in options["pubKeyCredParams"]
        assert b64(self.id) not in [item["id"] for item in options["excludeCredentials"]], "excluded"
        self.user = unb64(options["user"]["id"])
        numbers = self.key.public_key().public_numbers()
        public = cose({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)})
        data = (
            self._data(options["rp"]["id"], AT) + bytes(16) + len(self.id).to_bytes(2) + self.id + cbor2.dumps(public)
        )
        attestation = {"fmt": fmt, "attStmt": dict(statement or {}), "authData": data}
        client = self._client("webauthn.create", options["challenge"])
        response = {"clientDataJSON": b64(client), "attestationObject": b64(cbor2.dumps(attestation))}
        return self._credential(response | {"transports": ["internal", "unheard-of"]})

    def get(self, show: Mapping[str, Any], *, signed: Callable[[bytes], bytes] = lambda data: data) -> dict[str, Any]:
        """The answer to request options; `signed` may change what the signature is over."""
        options = show["publicKey"]
        assert options["userVerification"] == "required"
        assert b64(self.id) in [item["id"] for item in options["allowCredentials"]]
        if self.counts:
            self.sign_count += 1
        data = self._data(options["rpId"], 0)
        client = self._client("webauthn.get", options["challenge"])
        signature = self.key.sign(signed(data + hashlib.sha256(client).digest()), ec.ECDSA(hashes.SHA256()))
        response = {"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signature)}
        return self._credential(response | {"userHandle": b64(self.user)})

    def _data(self, rp_id: str, more: int) -> bytes:
        rp_hash = hashlib.sha256((self.rp_id or rp_id).encode()).digest()
        return rp_hash + bytes([self.flags | more]) + self.sign_count.to_bytes(4)

    def _client(self, kind: str, challenge: str) -> bytes:
        said = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False} | self.client
        return json.dumps(said).encode()

    def _credential(self, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": b64(self.id),
            "rawId": b64(self.id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        }
