"""Stages 5 and 6 for people with a browser: the session cookie, and what ties the session to its holder.

Laws: a cookie is good on the host it was made for, and nowhere else. A session that was made over a device certificate
is good with that device alone: the first request without it ends the whole login session. The store is asked on every
request. On a zero-log route nothing is written but that the session is in use, in quarters of the idle limit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields

from gateway.core.cookies import SESSION, read_cookie
from gateway.core.ports.pipeline import SessionBinder
from gateway.core.ports.stores import SessionRecord, SessionStore
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.identity.sessions.browser_sessions import BrowserSession, BrowserSessions
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions
from gateway.identity.sessions.token_refresh import Refresher
from gateway.identity.sessions.verification import (
    SessionProof,
    check_rotation,
    locate_session,
    verify_device_binding,
    verify_proofs,
)

_STEP_S = 60.0


@dataclass(frozen=True, slots=True)
class SignedIn(Identity):
    """An identity that came by cookie, with what was found on the way to it."""

    login: LoginSession | None = field(default=None, repr=False, compare=False)
    browser: BrowserSession | None = field(default=None, repr=False, compare=False)


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
        session = await locate_session(self._cookies, self._logins, value, facts.host)
        if isinstance(session, Refusal):
            return session
        browser, login_session = session
        if refusal := check_rotation(browser, login_session):
            return refusal
        issuer = login_session.identity.issuer
        if issuer not in self._issuers or (route.issuers and issuer not in route.issuers):
            return Refusal("login_required", "an issuer that this service does not accept")
        login = await self._refresher.fresh(login_session)
        return login if isinstance(login, Refusal) else self._signed_in(login, browser)

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
        claims = {item.name: getattr(known, item.name) for item in fields(Identity)}
        return SignedIn(**claims, login=login, browser=browser)


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
        if refusal := await verify_device_binding(self._logins, login, browser, device):
            return refusal
        bound_by = ["device"] if login.device_id or browser.device_id else []
        if before is not None and before.id == login.id:
            bound_by = list(before.bound_by)
        if before is None:
            proven = await verify_proofs(self._logins, self._proofs, browser, login, facts)
            if isinstance(proven, Refusal):
                return proven
            bound_by += proven
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
