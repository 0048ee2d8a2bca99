"""Stage 6 for access tokens: the session a token belongs to, whether it was ended, and the key it is bound to.

Laws: the store is asked on every request. On a zero-log route nothing is written but that a proof was used; only the
revocation is looked up. A token and the scheme it comes under fit each other: one that is bound by DPoP is no bearer
token, and one that is not needs no proof (RFC 9449 section 7.2).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from gateway.core.ports.stores import SessionRecord, SessionStore
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.identity.bearer.access_tokens import Credential, read_credential
from gateway.identity.bearer.dpop import Dpop, speaks_dpop

_REFRESH_S = 60.0
_CERTIFICATE, _KEY = "x5t#S256", "jkt"


@lru_cache(maxsize=4096)
def session_id(issuer: str, subject: str, session_hint: str) -> str:
    """The stable, unguessable-by-shape name of a bearer session: `b_` and 192 bits of a hash of who and which."""
    digest = hashlib.sha256(b"gateway/v1/bearer-session")
    for part in (issuer, subject, session_hint):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(4) + raw)
    return "b_" + base64.urlsafe_b64encode(digest.digest()).decode("ascii")[:32]


class BearerSessions:
    """Meets `SessionBinder`. Raises StoreDown.

    Refusals: `session_revoked`, `binding_mismatch`, and those of `Dpop`. Without `dpop` no token that is bound by DPoP
    can be used.
    """

    def __init__(self, store: SessionStore, clock: Callable[[], float] = time.time, dpop: Dpop | None = None) -> None:
        self._store = store
        self._clock = clock
        self._dpop = dpop
        self._refreshing: set[str] = set()

    async def bind(
        self,
        identity: Identity,
        device: Device | None,
        facts: RequestFacts,
        route: Route,
        *,
        before: Session | None = None,
        in_use: bool = True,
    ) -> Session | Refusal:
        """The session of a token that may be used here, with this certificate and key, at this moment.

        `before` is the session that an open connection began with: its proofs stay, only the session is asked for.
        """
        now = self._clock()
        name = session_id(identity.issuer, identity.subject, identity.session_hint)
        record = await self._store.session(name)
        if record is not None and record.revoked_at is not None:
            return Refusal("session_revoked", name)
        if before is not None and before.id == name:
            bound_by: tuple[str, ...] | Refusal = before.bound_by
        else:
            bound_by = await self._prove(identity, device, facts)
        if isinstance(bound_by, Refusal):
            return bound_by
        if in_use and not route.zero_log:
            await self._record(name, record, identity, device, now)
        if record is not None:
            created_at = record.created_at
        else:
            created_at = identity.auth_time if route.zero_log and identity.auth_time is not None else now
        return Session(name, created_at, bound_by)

    async def _record(
        self, name: str, record: SessionRecord | None, identity: Identity, device: Device | None, now: float
    ) -> None:
        """Write a session at its first sight, then once a minute; a refresh under way is not waited for."""
        if record is None:
            shown = identity.email or identity.name or identity.subject
            await self._store.put_session(
                SessionRecord(
                    id=name,
                    issuer=identity.issuer,
                    subject=identity.subject,
                    identity=shown,
                    device_id=device.id if device is not None else "",
                    created_at=now,
                    last_seen_at=now,
                    expires_at=identity.expires_at,
                )
            )
        elif now - record.last_seen_at >= _REFRESH_S and name not in self._refreshing:
            self._refreshing.add(name)
            try:
                await self._store.put_session(replace(record, last_seen_at=now, expires_at=identity.expires_at))
            finally:
                self._refreshing.discard(name)

    async def _prove(self, identity: Identity, device: Device | None, facts: RequestFacts) -> tuple[str, ...] | Refusal:
        """The proofs that held. A confirmation that cannot be checked here is a mismatch (RFC 7800)."""
        confirmation = identity.confirmation
        if confirmation.keys() - {_CERTIFICATE, _KEY}:
            return Refusal("binding_mismatch", "the token is bound to a kind of key that is not proven here")
        proofs = []
        if _CERTIFICATE in confirmation:
            shown = device.cert_sha256 if device is not None else facts.peer.cert_sha256
            expected = confirmation[_CERTIFICATE].encode("utf-8", "replace")
            if not shown or not hmac.compare_digest(expected, shown.encode("ascii")):
                return Refusal("binding_mismatch", "the token is bound to another certificate")
            proofs.append(_CERTIFICATE)
        if _KEY not in confirmation:
            unbound = Refusal("binding_mismatch", "a DPoP proof for a token that is not bound by DPoP")
            return unbound if speaks_dpop(facts) else tuple(proofs)
        credential = read_credential(facts)
        if self._dpop is None or not isinstance(credential, Credential) or credential.scheme != "dpop":
            return Refusal("binding_mismatch", "a token that is bound by DPoP, without DPoP")
        refusal = await self._dpop.verify(facts, credential.token, confirmation[_KEY])
        return refusal or (*proofs, "dpop")
