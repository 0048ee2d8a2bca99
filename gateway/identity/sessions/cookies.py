"""Stages 5 and 6 for people with a browser: the session cookie, and what ties the session to its holder.

Laws: a cookie is good on the host it was made for, and nowhere else. A session that was made over a device certificate
is good with that device alone: the first request without it ends the whole login session. The store is asked on every
request. On a zero-log route nothing is written but that the session is in use, in quarters of the idle limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

from gateway.core.cookies import SESSION, digest, read_cookie
from gateway.core.ports.documents import Documents
from gateway.core.ports.pipeline import SessionBinder
from gateway.core.ports.stores import SessionRecord, SessionStore
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions
from gateway.identity.sessions.token_refresh import Refresher

COLLECTION = "session"
_STEP_S = 60.0
_KEPT_S = 3_600.0


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """One cookie: a login session's use on one host. `key` is the cookie's digest; `device_id` "" is no device.

    It is good while `rotation` is that of its login session.
    """

    key: str = field(repr=False)
    login_id: str
    host: str
    device_id: str
    created_at: float
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class SignedIn(Identity):
    """An identity that came by cookie, with what was found on the way to it."""

    login: LoginSession | None = field(default=None, repr=False, compare=False)
    browser: BrowserSession | None = field(default=None, repr=False, compare=False)


class SessionProof(Protocol):
    """A further proof that a session is used by its holder (a key in the browser)."""

    async def prove(self, browser: BrowserSession, login: LoginSession, facts: RequestFacts) -> Sequence[str] | Refusal:
        """The names of the proofs that held, none when the session has no such key; a Refusal stops."""


class BrowserSessions:
    """The cookies that are good now. The store keeps only their digests. Raises StoreDown."""

    def __init__(self, documents: Documents, clock: Callable[[], float], random: Callable[[], str]) -> None:
        self._documents = documents
        self._clock = clock
        self._random = random

    async def open(self, login: LoginSession, host: str, device: Device | None) -> str:
        """A new cookie value for the use of `login` on `host`."""
        value = self._random()
        document = {
            "login_id": login.id,
            "host": host,
            "device_id": "" if device is None else device.id,
            "created_at": self._clock(),
            "rotation": login.rotation,
        }
        await self._documents.put(
            COLLECTION,
            digest(value),
            json.dumps(document).encode(),
            login.ends_at + _KEPT_S,
            version=0,
            group=login.id,
        )
        return value

    async def find(self, value: str) -> BrowserSession | None:
        """The session of a cookie value; None when it is none (any more)."""
        return await self.at(digest(value))

    async def at(self, key: str) -> BrowserSession | None:
        """The session with this key; None when it is none (any more)."""
        document = await self._documents.get(COLLECTION, key, self._clock())
        return None if document is None else BrowserSession(key, **json.loads(document.value))

    async def close(self, value: str) -> bool:
        """A cookie is good no more; whether it was."""
        return await self._documents.delete(COLLECTION, digest(value))

    async def rotate(self, value: str, login: LoginSession, host: str, device: Device | None) -> str:
        """A new value in place of `value`, as after every change of what a session may do (fixation)."""
        fresh = await self.open(login, host, device)
        await self.close(value)
        return fresh


class CookieReader:
    """The `IdentityReader` for the session cookie. `issuers` are those at which people sign in.

    None without a cookie. Refusals: `cookie_ambiguous`; `csrf_refused` for a WebSocket that another site's page opens;
    `login_required`, `session_expired`, `session_revoked` for a cookie that is none (any more); `binding_mismatch` for
    one of another host; `issuer_unavailable`.
    """

    def __init__(
        self,
        cookies: BrowserSessions,
        logins: LoginSessions,
        refresher: Refresher,
        issuers: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        self._cookies = cookies
        self._logins = logins
        self._refresher = refresher
        self._issuers = frozenset(issuers)
        self._clock = clock

    async def read(self, facts: RequestFacts, route: Route) -> Identity | None | Refusal:
        """Who is signed in with this cookie."""
        value = read_cookie(facts.header_values("cookie"), SESSION)
        if not isinstance(value, str):
            return value
        if facts.protocol == "websocket" and not _from_own_page(facts, route):
            return Refusal("csrf_refused", "a WebSocket from another origin")
        browser = await self._cookies.find(value)
        if browser is None:
            return Refusal("login_required", "an unknown session cookie")
        if browser.host != facts.host:
            await self._logins.end(browser.login_id, "its cookie was used on another host")
            return Refusal("binding_mismatch", f"a cookie of {browser.host}")
        login = await self._logins.live(browser.login_id)
        if isinstance(login, Refusal):
            return login
        if browser.rotation != login.rotation:
            return Refusal("login_required", "a cookie from before a step-up")
        issuer = login.identity.issuer
        if issuer not in self._issuers or (route.issuers and issuer not in route.issuers):
            return Refusal("login_required", "an issuer that this service does not accept")
        login = await self._refresher.fresh(login)
        if isinstance(login, Refusal):
            return login
        return self._signed_in(login, browser)

    async def again(
        self,
        identity: Identity,
        facts: RequestFacts,  # noqa: ARG002  (port)
        route: Route,
    ) -> Identity | None | Refusal:
        """The person of an open connection as they are now, whatever became of its cookie: a step-up changes that."""
        if not isinstance(identity, SignedIn) or identity.login is None or identity.browser is None:
            return None
        login = await self._logins.live(identity.login.id)
        if isinstance(login, Refusal):
            return login
        if route.issuers and login.identity.issuer not in route.issuers:
            return Refusal("login_required", "an issuer that this service does not accept")
        login = await self._refresher.fresh(login)
        return login if isinstance(login, Refusal) else self._signed_in(login, identity.browser)

    def _signed_in(self, login: LoginSession, browser: BrowserSession) -> SignedIn:
        known = login.subject_now(self._clock())
        said = {item.name: getattr(known, item.name) for item in fields(Identity)}
        return SignedIn(**said, login=login, browser=browser)


class BrowserBinder:
    """The `SessionBinder` for what `CookieReader` found. Refusal `binding_mismatch`, or what a proof answers."""

    def __init__(
        self,
        logins: LoginSessions,
        store: SessionStore,
        clock: Callable[[], float],
        proofs: Sequence[SessionProof] = (),
    ) -> None:
        self._logins = logins
        self._store = store
        self._clock = clock
        self._proofs = proofs

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
        """The session, with the proofs that held. Raises TypeError for an identity that did not come by cookie."""
        if not isinstance(identity, SignedIn) or identity.login is None or identity.browser is None:
            raise TypeError("not an identity by cookie")
        login, browser = identity.login, identity.browser
        if other_device(login, browser, device):
            await self._logins.end(login.id, "its cookie was used without its device")
            return Refusal("binding_mismatch", login.id)
        bound_by = ["device"] if login.device_id or browser.device_id else []
        if before is not None and before.id == login.id:
            bound_by = list(before.bound_by)
        for proof in self._proofs if before is None else ():
            held = await proof.prove(browser, login, facts)
            if isinstance(held, Refusal):
                if held.reason == "binding_mismatch":
                    await self._logins.end(login.id, "its key was not proven")
                return held
            bound_by += held
        if not in_use:
            pass  # a page that is only left open keeps no session alive
        elif route.zero_log:
            await self._logins.seen(login, self._logins.idle_s / 4)
        else:
            step_s = min(_STEP_S, self._logins.idle_s / 4)
            await self._record(login, step_s)
            await self._logins.seen(login, step_s)
        if not login.is_elevated(self._clock()):
            return Session(login.id, login.created_at, tuple(bound_by))
        until, at = login.elevated_until, login.elevated_at
        return Session(login.id, login.created_at, tuple(bound_by), until, at, login.elevated_amr)

    async def _record(self, login: LoginSession, step_s: float) -> None:
        """Keep the list of sessions current; the login session itself says when that is due."""
        now = self._clock()
        record = await self._store.session(login.id)
        if record is not None and now - record.last_seen_at < step_s:
            return
        identity = login.identity
        await self._store.put_session(
            SessionRecord(
                id=login.id,
                issuer=identity.issuer,
                subject=identity.subject,
                identity=identity.email or identity.name or identity.subject,
                device_id=login.device_id,
                created_at=login.created_at,
                last_seen_at=now,
                expires_at=login.ends_at,
            )
        )


class BinderByKind:
    """Sessions by cookie to one binder, all others to the other."""

    def __init__(self, browser: SessionBinder, bearer: SessionBinder) -> None:
        self._browser = browser
        self._bearer = bearer

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
        """What the binder of this kind of identity says."""
        binder = self._browser if isinstance(identity, SignedIn) else self._bearer
        return await binder.bind(identity, device, facts, route, before=before, in_use=in_use)


def _from_own_page(facts: RequestFacts, route: Route) -> bool:
    """Whether the service's own page opens this WebSocket, or one that may; what sends no Origin is no browser.

    No browser asks first before a page of another origin opens one (RFC 6455 section 10.2).
    """
    return all(origin == facts.origin or origin in route.origins for origin in facts.header_values("origin"))


def other_device(login: LoginSession, browser: BrowserSession | None, device: Device | None) -> bool:
    """Whether a session that is bound to a device is used with another one, or none."""
    bound = {login.device_id, "" if browser is None else browser.device_id} - {""}
    return bool(bound) and bound != {"" if device is None else device.id}
