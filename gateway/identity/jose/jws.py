"""JOSE, over pyjwt: signing keys, published keys, signatures. The only importer of `jwt` in this package.

pyjwt ignores a JWK's `use`, `key_ops` and key size, so keys are filtered here before pyjwt sees them (RFC 8725
sections 3.1, 3.2 and 3.5; RFC 7517 section 4). Only asymmetric algorithms exist here: a public key can never become an
HMAC secret.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*\Z")
_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 8192
_MAX_RSA_EXPONENT = (1 << 32) - 1
_MAX_KEYS = 100
_MAX_KID = 256
_KINDS: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def b64url_encode(raw: bytes) -> str:
    """base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def b64url_decode(text: str) -> bytes | None:
    """The bytes; None for anything but the one canonical spelling (no padding, no stray bits)."""
    if not _BASE64URL.match(text) or len(text) % 4 == 1:
        return None
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return raw if b64url_encode(raw) == text else None


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A public key an issuer publishes for signatures, and what it may verify. Compared by `kid` and key material."""

    kid: str | None
    material: tuple[str, ...]
    algorithms: tuple[str, ...]
    _keys: Mapping[str, jwt.PyJWK] = field(repr=False, compare=False)

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's signature of `message`. False for an algorithm it may not be used with."""
        key = self._keys.get(algorithm)
        if key is None:
            return False
        try:
            return bool(key.Algorithm.verify(message, key.key, signature))
        except (ValueError, TypeError, jwt.PyJWTError):
            return False


def published_keys(document: Mapping[str, Any], algorithms: Sequence[str]) -> tuple[PublishedKey, ...]:
    """The usable keys of a JWKS (RFC 7517 section 5), in its order; unusable ones are left out (section 5 says so).

    A key is unusable when it is symmetric, weak, private, not for signatures, or fits none of `algorithms`.
    """
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > _MAX_KEYS:
        return ()
    found = (_published(entry, algorithms) for entry in entries if isinstance(entry, dict))
    return tuple(key for key in found if key is not None)


def _published(entry: Mapping[str, Any], allowed: Sequence[str]) -> PublishedKey | None:
    kty, crv, kid = entry.get("kty"), entry.get("crv"), entry.get("kid")
    if not isinstance(kty, str) or not isinstance(crv, (str, type(None))) or _PRIVATE_MEMBERS & entry.keys():
        return None
    if not (kid is None or (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID)):
        return None
    if entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    names = _PUBLIC_MEMBERS.get(kty, ())
    values = {name: value for name in names if isinstance(value := entry.get(name), str)}
    if len(values) != len(names):
        return None
    if kty == "RSA" and not _strong(values["n"], values["e"]):
        return None
    only = entry.get("alg")
    usable = [alg for alg in _KINDS.get((kty, crv), ()) if alg in allowed and (only is None or only == alg)]
    if not usable:
        return None
    public = {"kty": kty, **values} if crv is None else {"kty": kty, "crv": crv, **values}
    try:
        keys = {alg: jwt.PyJWK(public, alg) for alg in usable}
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return PublishedKey(kid, tuple(public.values()), tuple(usable), keys)


def _strong(modulus: str, exponent: str) -> bool:
    n, e = b64url_decode(modulus), b64url_decode(exponent)
    if not n or not e:
        return False
    size, value = int.from_bytes(n).bit_length(), int.from_bytes(e)
    return _MIN_RSA_BITS <= size <= _MAX_RSA_BITS and value % 2 == 1 and 1 < value <= _MAX_RSA_EXPONENT


class SigningKey:
    """A private key with its `kid`; the repr shows nothing of the key. Raises ValueError for a key that will not do."""

    def __init__(self, pem: bytes, algorithm: str, kid: str) -> None:
        if not any(algorithm in names for names in _KINDS.values()):
            raise ValueError("not an asymmetric algorithm")
        self.kid, self.algorithm = kid, algorithm
        handler = jwt.PyJWS().get_algorithm_by_name(algorithm)
        try:
            key = handler.prepare_key(pem)
        except (jwt.PyJWTError, ValueError, TypeError):
            key = None
        if not hasattr(key, "sign"):
            raise ValueError(f"not a private key for {algorithm}")
        if handler.check_key_length(key):
            raise ValueError("an RSA key below 2048 bits")
        self._handler, self._key = handler, key

    def __repr__(self) -> str:
        return f"SigningKey({self.kid!r}, {self.algorithm!r})"

    def sign(self, claims: Mapping[str, Any], typ: str = "JWT") -> str:
        """A compact JWT (RFC 7519) with these claims. Raises TypeError for claims that are no JSON."""
        header = {"alg": self.algorithm, "kid": self.kid, "typ": typ}
        parts = (b64url_encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, dict(claims)))
        message = ".".join(parts)
        return f"{message}.{b64url_encode(self._handler.sign(message.encode('ascii'), self._key))}"
