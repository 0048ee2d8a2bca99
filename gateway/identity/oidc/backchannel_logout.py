"""OpenID Connect Back-Channel Logout 1.0: an issuer says that a login session, or everything of a person, has ended.

Law: 400 says that the token itself is bad, and issuers then never send it again. What might work later is answered
with 503. An accepted token that could not be acted upon may come again; one that was acted upon may not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from gateway.config import Issuer
from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import SessionEnder, StoreDown
from gateway.core.reasons import Refusal
from gateway.identity.jose.jws import b64url_decode
from gateway.identity.jose.strict_json import read_object
from gateway.identity.oidc.claims import check_claims, present
from gateway.identity.oidc.discovery import ASKED_LATELY, IssuerDirectory

RETRY = frozenset({"store_down", "issuer_unavailable"})
_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_COLLECTION = "logout_token"
_BEGUN, _DONE = b"begun", b"done"
_LIMIT_BYTES = 16_384
_PARTS = 3
_MAX_KID = 256
_MAX_LIFE_S = 3_600.0
_UNTRUSTED = frozenset({"jku", "jwk", "x5u", "x5c", "crit"})
_STRICT_TYPES = frozenset({"logout+jwt", "application/logout+jwt"})
_ZITADEL_TYPES = _STRICT_TYPES | {"jwt"}
_REQUIRED = ("iss", "aud", "iat", "exp", "jti", "events")


@dataclass(frozen=True, slots=True)
class LogoutToken:
    """A verified logout token: `sid` ends that login session, `subject` alone all that this person has."""

    jti: str
    expires_at: float
    sid: str | None
    subject: str | None


class LogoutReceiver:
    """The receiver for one issuer, at which the gateway is the client `client_id`."""

    def __init__(
        self,
        config: Issuer,
        client_id: str,
        directory: IssuerDirectory,
        ender: SessionEnder,
        documents: Documents,
        clock: Callable[[], float],
    ) -> None:
        # A logout token is for the client, an access token for the project: one check for both audiences would do
        # for neither.
        self._config = config.model_copy(update={"audiences": (client_id,), "client_ids": ()})
        self._directory = directory
        self._ender = ender
        self._documents = documents
        self._clock = clock

    async def receive(self, token: str) -> int | Refusal:
        """End what the token names: how many sessions that were.

        A refusal in `RETRY` may be sent again; all others say what is wrong with the token.
        """
        logout = await self.verify(token)
        if isinstance(logout, Refusal):
            return logout
        digest = sha256(f"{self._config.issuer}|{logout.jti}".encode()).hexdigest()
        until = logout.expires_at + self._config.leeway_s + 1
        try:
            if not await self._documents.put(_COLLECTION, digest, _BEGUN, until, version=0):
                held = await self._documents.get(_COLLECTION, digest, self._clock())
                if held is not None and held.value == _DONE:
                    return Refusal("token_malformed", "a jti that was used before")
            ended = await self._ender.end_login_sessions(
                self._config.issuer,
                sid=logout.sid,
                subject=None if logout.sid is not None else logout.subject,
                why="logged out at the identity provider",
            )
            await self._documents.overwrite(_COLLECTION, digest, _DONE, until)
        except StoreDown:
            return Refusal("store_down", "back-channel logout")
        return ended

    async def verify(self, token: str) -> LogoutToken | Refusal:
        """Whether this is a logout token of this issuer for us, now (section 2.6 of the specification)."""
        parts = token.split(".")
        if len(token) > _LIMIT_BYTES or len(parts) != _PARTS or not token.isascii():
            return Refusal("token_malformed", "not a signed JWT")
        raw_header, raw_claims, signature = (b64url_decode(part) for part in parts)
        header = read_object(raw_header, depth=4, members=64) if raw_header is not None else None
        payload = read_object(raw_claims) if raw_claims is not None else None
        if header is None or payload is None or signature is None:
            return Refusal("token_malformed")
        algorithm, kid = header.get("alg"), header.get("kid")
        if header.keys() & _UNTRUSTED or algorithm not in self._config.algorithms:
            return Refusal("token_algorithm_refused")
        if not (kid is None or (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID)):
            return Refusal("token_malformed", "kid")
        refusal = self._check(header.get("typ"), payload)
        if refusal is not None:
            return refusal
        keys = await self._directory.keys_for(kid, str(algorithm))
        if isinstance(keys, Refusal):
            # It may be signed with a key that is newer than what is held: that is to be found out, not to be refused.
            return Refusal("issuer_unavailable", ASKED_LATELY) if keys.detail == ASKED_LATELY else keys
        message = f"{parts[0]}.{parts[1]}".encode("ascii")
        if not any(key.verifies(str(algorithm), message, signature) for key in keys):
            return Refusal("token_signature_invalid")
        claims = present(payload)
        return LogoutToken(claims["jti"], float(claims["exp"]), claims.get("sid"), claims.get("sub"))

    def _check(self, typ: object, payload: Mapping[str, Any]) -> Refusal | None:
        """What can be said of the token without its issuer: kind and claims."""
        # Zitadel: every token says typ "JWT"; `events` and the absent nonce keep an id token from being taken for this.
        kinds = _ZITADEL_TYPES if self._config.profile == "zitadel" else _STRICT_TYPES
        if not isinstance(typ, str) or typ.lower() not in kinds or "nonce" in payload:
            return Refusal("token_kind_wrong", "not a logout token")
        events = payload.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(_EVENT), dict):
            return Refusal("token_kind_wrong", "no back-channel logout among its events")
        claims = present(payload)
        missing = [name for name in _REQUIRED if name not in claims]
        if missing or not ("sid" in claims or "sub" in claims):
            return Refusal("token_malformed", f"no {missing[0] if missing else 'sid and no sub'}")
        now = self._clock()
        refusal = check_claims(claims, self._config, now)
        if refusal is None and claims["exp"] > now + _MAX_LIFE_S:
            # It is remembered for as long as it lives, so it may not live for ever.
            return Refusal("token_malformed", "a life of more than an hour")
        return refusal
