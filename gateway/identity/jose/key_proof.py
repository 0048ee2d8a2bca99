"""Proofs of a key: small JWTs that a client signs with a key of its own (RFC 9449 section 4, DBSC).

Law: what a proof is signed with is looked at before any key is made of it; only asymmetric algorithms ever are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.core.reasons import Refusal
from gateway.identity.jose.jws import b64url_decode, b64url_encode, published_keys
from gateway.identity.jose.strict_json import read_object

_LIMIT_BYTES = 8_192
_JWS_PARTS = 3
_FROM_ELSEWHERE = frozenset({"jku", "x5u", "x5c", "crit"})
# What a key is, in the order of RFC 7638 section 3.2.
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
_NAMES = frozenset({"crv", "kty"})


@dataclass(frozen=True, slots=True)
class ClaimedProof:
    """A proof that nobody has verified. `jwk` is the key that its header brings, None for none."""

    algorithm: str
    jwk: Mapping[str, Any] | None
    claims: Mapping[str, Any] = field(repr=False)
    _message: bytes = field(repr=False)
    _signature: bytes = field(repr=False)

    def is_signed_by(self, jwk: Mapping[str, Any]) -> bool:
        """Whether it is signed with this public key; False for a key that is private, weak or of another kind."""
        keys = published_keys({"keys": [jwk]}, (self.algorithm,))
        return any(key.verifies(self.algorithm, self._message, self._signature) for key in keys)


def read_proof(text: str, *, typ: str, algorithms: Sequence[str], reason: str) -> ClaimedProof | Refusal:
    """The proof in `text`, a compact JWS with this `typ` and one of `algorithms`; else a Refusal with `reason`."""
    parts = text.split(".") if text.isascii() and len(text) <= _LIMIT_BYTES else []
    raw = [b64url_decode(part) for part in parts]
    if len(raw) != _JWS_PARTS or raw[0] is None or raw[1] is None or raw[2] is None:
        return Refusal(reason, "no compact JWS")
    header, claims = read_object(raw[0], depth=4, members=64), read_object(raw[1], depth=4, members=64)
    if header is None or claims is None:
        return Refusal(reason, "no JSON object")
    algorithm, jwk = header.get("alg"), header.get("jwk")
    if header.get("typ") != typ:
        return Refusal(reason, "typ")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        return Refusal(reason, "alg")
    if header.keys() & _FROM_ELSEWHERE or not isinstance(jwk, (dict, type(None))):
        return Refusal(reason, "a key from elsewhere, or an extension")
    return ClaimedProof(algorithm, jwk, claims, text.rpartition(".")[0].encode("ascii"), raw[2])


def public_key(jwk: Mapping[str, Any]) -> dict[str, str] | None:
    """The members that make this key what it is; None for a key of another kind or in another than the one spelling."""
    kind = jwk.get("kty")
    values = {name: jwk.get(name) for name in _MEMBERS.get(kind, ())} if isinstance(kind, str) else {}
    members = {name: value for name, value in values.items() if isinstance(value, str)}
    if not members or len(members) != len(values):
        return None
    return members if all(name in _NAMES or b64url_decode(value) for name, value in members.items()) else None


def thumbprint(jwk: Mapping[str, Any]) -> str | None:
    """The key's SHA-256 thumbprint in base64url (RFC 7638); None for what `public_key` does not take."""
    members = public_key(jwk)
    if members is None:
        return None
    text = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return b64url_encode(hashlib.sha256(text.encode()).digest())
