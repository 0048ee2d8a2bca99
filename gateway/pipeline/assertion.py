"""What the gateway tells an upstream about the caller: a signed JWT for that service, that request, that minute.

Keys are ES256, live in the secret store for every worker, and follow each other without a gap: one is made and
published an hour before it signs, and stays published until all it signed has expired.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gateway.core.ports.stores import SecretStore
from gateway.core.subject import Device, Identity, Session

PURPOSE = "gateway/v1/assertion-key"
ASSERTION_LIFE_S = 60
_LEAD_S = 3_600  # longer than any upstream caches a JWKS
_GRACE_S = 600  # for upstreams whose clock is behind
_COORDINATE_BYTES = 32
_CALLERS = 4_096
_ALGORITHM = ec.ECDSA(hashes.SHA256())
_compact = json.JSONEncoder(separators=(",", ":")).encode
_quote = json.encoder.encode_basestring_ascii


@dataclass(frozen=True, slots=True)
class _SigningKey:
    """A key that signs from `begins` to `ends` (seconds since the epoch); `head` is its encoded JOSE header."""

    name: str
    begins: int
    ends: int
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    head: str
    jwk: Mapping[str, str]

    def signed(self, head: str, claims: str) -> str:
        """A compact JWS of an encoded header and the claims' JSON text."""
        signed = f"{head}.{_b64(claims.encode('ascii'))}"
        r, s = decode_dss_signature(self.key.sign(signed.encode("ascii"), _ALGORITHM))
        return f"{signed}.{_b64(r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES))}"


class Asserter:
    """Signs assertions. `refresh` must have run once before the first `sign`, and then every minute or so."""

    def __init__(
        self,
        secret_store: SecretStore,
        issuer_url: str,
        clock: Callable[[], float] = time.time,
        rotate_s: int = 86_400,
    ) -> None:
        if rotate_s < 2 * _LEAD_S:
            raise ValueError("keys cannot be rotated faster than every two hours")
        self._store = secret_store
        self._issuer = issuer_url
        self._clock = clock
        self._rotate_s = rotate_s
        self._keys: tuple[_SigningKey, ...] = ()
        self._callers: dict[tuple[int, str, str, str], tuple[Identity, str]] = {}

    async def refresh(self) -> None:
        """Load the keys all workers share, make the next one when it is due, forget those nobody needs.

        Raises StoreDown; the keys loaded before stay in use until they end.
        """
        now = int(self._clock())
        keys = await self._load()
        for due in (now, now + _LEAD_S):
            if not any(key.begins <= due < key.ends for key in keys):
                begins = max((key.ends for key in keys if now < key.ends <= due), default=due - due % self._rotate_s)
                name = f"{begins}-{begins + self._rotate_s}"
                # Whoever is first wins: every worker arrives at the same name.
                await self._store.put_secret(PURPOSE, name, self._clock(), _new_key())
                keys = await self._load()
        for key in keys:
            if key.ends + ASSERTION_LIFE_S + _GRACE_S < now:
                await self._store.drop_secret(PURPOSE, key.name)
        self._keys = tuple(key for key in keys if key.ends + ASSERTION_LIFE_S + _GRACE_S >= now)

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517) by which an upstream verifies assertions."""
        return {"keys": [dict(key.jwk) for key in self._keys]}

    def sign(
        self,
        audience: str,
        identity: Identity,
        device: Device | None,
        session: Session | None,
        decision_id: str,
        method: str,
        path: str,
    ) -> str:
        """A compact JWT (`typ: gateway-assertion+jwt`) for one request. Raises RuntimeError without a signing key."""
        now = int(self._clock())
        key = self._current(now)
        caller = self._caller(audience, identity, device, session)
        claims = (
            f'{caller}"iat":{now},"exp":{now + ASSERTION_LIFE_S},"jti":"{decision_id}","decision":"{decision_id}",'
            f'"req":{{"method":{_quote(method)},"path":{_quote(path)}}}}}'
        )
        return key.signed(key.head, claims)

    def sign_claims(self, claims: Mapping[str, Any], typ: str) -> str:
        """A compact JWT of another kind, with these claims. Raises RuntimeError without a signing key."""
        key = self._current(int(self._clock()))
        return key.signed(
            _b64(_compact({"alg": "ES256", "kid": key.jwk["kid"], "typ": typ}).encode()), _compact(claims)
        )

    def _current(self, now: int) -> _SigningKey:
        for key in self._keys:
            if key.begins <= now < key.ends:
                return key
        raise RuntimeError("no signing key")

    def _caller(self, audience: str, identity: Identity, device: Device | None, session: Session | None) -> str:
        """The claims that stay the same from request to request: an open JSON object that ends in a comma."""
        session_id, device_id = session.id if session is not None else "", device.id if device is not None else ""
        key = (id(identity), audience, session_id, device_id)
        known = self._callers.get(key)
        # The identity is kept beside its text, so an id cannot come to stand for another one.
        if known is not None and known[0] is identity:
            return known[1]
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": audience,
            "sub": identity.subject,
            "sub_iss": identity.issuer,
            "roles": [{"key": role.key, "org": role.org} for role in identity.roles],
            "amr": identity.amr,
        }
        optional = {
            "email": identity.email,
            "name": identity.name,
            "department": identity.department,
            "org": identity.org,
            "auth_time": None if identity.auth_time is None else int(identity.auth_time),
            "sid": session_id,
            "device": device_id,
        }
        claims.update((name, value) for name, value in optional.items() if value not in {"", None})
        text = _compact(claims).removesuffix("}") + ","
        if len(self._callers) >= _CALLERS:
            self._callers.clear()
        self._callers[key] = identity, text
        return text

    async def _load(self) -> Sequence[_SigningKey]:
        """Every readable key, the one that began last first."""
        keys = [_read(name, value) for name, _, value in await self._store.secrets(PURPOSE)]
        return sorted((key for key in keys if key is not None), key=lambda key: key.begins, reverse=True)


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read(name: str, value: bytes) -> _SigningKey | None:
    """The key `value` (PKCS#8 DER) of `name` "begins-ends"; None for one this version cannot use."""
    begins, mark, ends = name.partition("-")
    try:
        key = serialization.load_der_private_key(value, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not mark or not begins.isdecimal() or not ends.isdecimal() or not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    point = key.public_key().public_numbers()
    x, y = _b64(point.x.to_bytes(_COORDINATE_BYTES)), _b64(point.y.to_bytes(_COORDINATE_BYTES))
    required = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    kid = _b64(hashlib.sha256(_compact(required).encode("ascii")).digest())  # RFC 7638
    head = _b64(_compact({"alg": "ES256", "kid": kid, "typ": "gateway-assertion+jwt"}).encode("ascii"))
    jwk = {**required, "kid": kid, "alg": "ES256", "use": "sig"}
    return _SigningKey(name, int(begins), int(ends), key, head, jwk)
