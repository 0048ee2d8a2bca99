"""What policy wants done beside a refusal: end this session, end all of the person's, lock the account.

Laws: the access here ends first, whatever the identity provider says; a lock that the provider did not take is written
down before anything is asked, and tried again until it did, by whichever worker comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import SessionStore, StoreDown
from gateway.core.subject import Identity, Session, subject_key
from gateway.identity.sessions.login_sessions import LoginSessions
from gateway.identity.ssf.events import EventSink, EventSubject, risk_rose, tell_nobody
from gateway.identity.zitadel.access import ApiFailure

COLLECTION, TOLD = "lock_wanted", "risk_told"
_RETRY_S, _KEPT_S, _TOLD_S = 5.0, 86_400.0, 3_600.0


class AccountLock(Protocol):
    """Locks accounts at one issuer."""

    async def lock(self, user_id: str) -> ApiFailure | None:
        """Lock an account; None when it is locked."""

    async def unlock(self, user_id: str) -> ApiFailure | None:
        """Unlock an account; None when it is unlocked."""


class Reactions:
    """`locks` are the issuers whose accounts can be locked. Raises StoreDown."""

    def __init__(
        self,
        logins: LoginSessions,
        store: SessionStore,
        documents: Documents,
        locks: Mapping[str, AccountLock],
        clock: Callable[[], float],
        tell: EventSink = tell_nobody,
    ) -> None:
        self._logins = logins
        self._store = store
        self._documents = documents
        self._locks = locks
        self._clock = clock
        self._tell = tell

    async def react(
        self, wanted: Sequence[str], identity: Identity | None, session: Session | None, why: str
    ) -> list[str]:
        """Do what is wanted; what was done, and "lock_pending" for a lock that will be tried again.

        "reverify" is nothing to do here: the next sign-in is a new one.
        """
        done: list[str] = []
        if session is not None and "revoke_session" in wanted:
            await self._end(session.id, why)
            done.append("revoke_session")
        if identity is None:
            return done
        if {"revoke_subject", "lock_account"} & set(wanted):
            if session is not None:
                await self._end(session.id, why)
            await self._logins.end_login_sessions(identity.issuer, subject=identity.subject, why=why)
            done.append("revoke_subject")
        if "lock_account" in wanted and identity.issuer in self._locks:
            failure = await self._lock(identity.issuer, identity.subject)
            done.append("lock_account" if failure is None else "lock_pending")
        await self._told(identity, why)
        return done

    async def lock(self, issuer: str, subject: str, why: str) -> tuple[int, ApiFailure | None]:
        """End all of a person's sessions, then lock the account: how many ended, and why it is not locked yet.

        A lock that failed is tried again by the gateway. Raises KeyError for an issuer without `locks`.
        """
        ended = await self._logins.end_login_sessions(issuer, subject=subject, why=why)
        return ended, await self._lock(issuer, subject)

    async def unlock(self, issuer: str, subject: str) -> ApiFailure | None:
        """Want no lock any more, and unlock the account; None when it is. Raises KeyError as `lock` does."""
        await self._documents.delete(COLLECTION, subject_key(issuer, subject))
        failure = await self._locks[issuer].unlock(subject)
        return None if failure is None or failure.kind in {"precondition", "unchanged"} else failure

    async def run(self) -> None:
        """For ever: try again what an issuer did not take."""
        while True:
            await asyncio.sleep(_RETRY_S)
            with contextlib.suppress(StoreDown):
                await self.retry()

    async def retry(self) -> None:
        """Try every lock that is still wanted."""
        for issuer in self._locks:
            for waiting in await self._documents.list(COLLECTION, issuer, self._clock()):
                await self._lock(issuer, str(json.loads(waiting.value)))

    async def _end(self, session_id: str, why: str) -> None:
        if not await self._logins.end(session_id, why):
            await self._store.revoke_session(session_id, self._clock(), why)

    async def _told(self, identity: Identity, why: str) -> None:
        """Those who follow this gateway hear of it once an hour."""
        key, now = subject_key(identity.issuer, identity.subject), self._clock()
        if await self._documents.put(TOLD, key, b"{}", now + _TOLD_S, version=0):
            await self._tell(risk_rose(EventSubject(identity.issuer, identity.subject), why, now))

    async def _lock(self, issuer: str, subject: str) -> ApiFailure | None:
        key = subject_key(issuer, subject)
        value = json.dumps(subject).encode()
        await self._documents.overwrite(COLLECTION, key, value, self._clock() + _KEPT_S, group=issuer)
        failure = await self._locks[issuer].lock(subject)
        # An account that is gone, or locked already, needs no lock.
        if failure is not None and failure.kind not in {"not_found", "precondition", "unchanged"}:
            return failure
        await self._documents.delete(COLLECTION, key)
        return None
