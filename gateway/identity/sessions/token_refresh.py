"""Renewing a session's tokens: strictly one at a time for each session, whatever the number of requests and workers.

Zitadel: a refresh token is good once, and its use ends the access token before it. So whoever refreshes holds the
session's lock: a document with a short lease, taken by compare-and-set. The new tokens are kept before anybody uses
them. A worker that dies in between costs one sign-in, never two refreshes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from gateway.core.ports.documents import Documents
from gateway.core.reasons import Refusal
from gateway.identity.jose.single_flight import SingleFlight
from gateway.identity.oidc.claims import Claims, identity_of
from gateway.identity.oidc.relying_party import RelyingParty, Tokens
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions, renewal
from gateway.state.lease import Locks

LEASE_S = 20.0  # longer than an issuer may take
_WAIT_S, _POLL_S = 12.0, 0.05
_RETRY_S = 5.0
_MOST = 10_000


class Refresher:
    """Keeps sessions' tokens fresh. Lives on one event loop. `issuers` are the relying parties by issuer."""

    def __init__(
        self,
        sessions: LoginSessions,
        documents: Documents,
        issuers: Mapping[str, RelyingParty],
        clock: Callable[[], float],
        random: Callable[[], str],
    ) -> None:
        self._sessions = sessions
        self._locks = Locks(documents=documents, life_s=LEASE_S, clock=clock)
        self._issuers = issuers
        self._clock = clock
        self._random = random
        self._flight: SingleFlight[str, LoginSession | Refusal] = SingleFlight()
        self._retry_at: OrderedDict[str, float] = OrderedDict()

    async def fresh(self, login: LoginSession) -> LoginSession | Refusal:
        """The session with tokens that have not expired; without a refresh token there is nothing to renew.

        Refusals: `session_revoked` (the issuer says so; the session is then ended), `issuer_unavailable`.
        """
        now = self._clock()
        if login.fresh_until is None or not self._is_due(login):
            return login
        held_back = now < self._retry_at.get(login.id, 0.0) and not self._flight.busy(login.id)
        if now < login.fresh_until:
            if not held_back:
                self._flight.start(login.id, lambda: self._renew(login.id))
            return login
        if held_back:
            return Refusal("issuer_unavailable", "the tokens of the session cannot be renewed")
        outcome = await self._flight.ask(login.id, lambda: self._renew(login.id))
        return outcome or Refusal("issuer_unavailable", "too many refreshes")

    async def close(self) -> None:
        """Let what runs come to its end."""
        await self._flight.close()

    async def _renew(self, login_id: str) -> LoginSession | Refusal:
        outcome = await self._wait_and_renew(login_id)
        self._retry_at.pop(login_id, None)
        if isinstance(outcome, Refusal):
            self._retry_at[login_id] = self._clock() + _RETRY_S
            if len(self._retry_at) > _MOST:
                self._retry_at.popitem(last=False)
        return outcome

    async def _wait_and_renew(self, login_id: str) -> LoginSession | Refusal:
        """Take the lock, or see that another worker has renewed the tokens meanwhile."""
        owner = self._random()
        for _ in range(int(_WAIT_S / _POLL_S)):
            has_lock = await self._locks.acquire(login_id, owner)
            try:
                login = await self._sessions.live(login_id)
                if isinstance(login, Refusal) or not self._is_due(login):
                    return login
                if has_lock:
                    return await self._ask(login)
            finally:
                if has_lock:
                    await self._locks.release(login_id, owner)
            await asyncio.sleep(_POLL_S)
        return Refusal("issuer_unavailable", "another worker refreshes for too long")

    def _is_due(self, login: LoginSession) -> bool:
        return login.renew_at is not None and self._clock() >= login.renew_at

    async def _ask(self, login: LoginSession) -> LoginSession | Refusal:
        """Ask the issuer, keep what it says, then tell."""
        issuer = self._issuers.get(login.identity.issuer)
        kept = await self._sessions.tokens(login.id)
        if issuer is None or kept is None:
            return await self._over(login, "nothing to renew the session with")
        old, version = kept
        if old.refresh_token is None:
            return await self._over(login, "no refresh token")
        tokens = await issuer.refresh(old.refresh_token)
        if isinstance(tokens, Refusal):
            return await self._failed(login, tokens)
        # Zitadel sends a new refresh token each time; an issuer that sends none means the old one.
        next_ones = replace(
            tokens,
            refresh_token=tokens.refresh_token or old.refresh_token,
            id_token=tokens.id_token or old.id_token,
        )
        if not await self._sessions.put_tokens(login, next_ones, version=version):
            return await self._sessions.live(login.id)
        identity = login.identity
        claims = await issuer.renewed_claims(tokens, subject=identity.subject, auth_time=identity.auth_time)
        if isinstance(claims, Refusal):
            return await self._failed(login, claims)
        now = self._clock()
        renewed = await self._sessions.change(login.id, lambda found: _renewed(found, tokens, claims, issuer, now))
        return renewed or await self._sessions.live(login.id)

    async def _failed(self, login: LoginSession, refusal: Refusal) -> Refusal:
        """An issuer that cannot be asked may be asked again; any other refusal ends the session."""
        if refusal.reason == "issuer_unavailable":
            return refusal
        return await self._over(login, f"the issuer does not renew it: {refusal.detail}")

    async def _over(self, login: LoginSession, why: str) -> Refusal:
        await self._sessions.end(login.id, why)
        return Refusal("session_revoked", why)


def _renewed(
    login: LoginSession, tokens: Tokens, claims: Claims | None, issuer: RelyingParty, now: float
) -> LoginSession:
    """The session after a refresh: what the issuer says of the person now; how they signed in stays."""
    identity = login.identity
    if claims is not None:
        found = identity_of(claims, issuer.config, kind="session", expires_at=login.ends_at, hint=login.id)
        if isinstance(found, Refusal):
            # Claims that cannot be read grant nothing more: no role stays.
            identity = replace(identity, roles=(), department="")
        else:
            identity = replace(found, amr=identity.amr, acr=identity.acr, auth_time=identity.auth_time, confirmation={})
    until = tokens.expires_at
    return replace(login, identity=identity, fresh_until=until, renew_at=renewal(now, until))
