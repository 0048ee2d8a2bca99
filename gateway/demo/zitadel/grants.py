"""Codes and refresh tokens of the emulated instance: token, revoke, userinfo, end_session."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from gateway.demo.idp.token_issuer import LoginSession, TokenIssuer, snowflake
from gateway.demo.zitadel.apps import JWT, App
from gateway.demo.zitadel.clients import BAD_CLIENT, Clients, read_form
from gateway.demo.zitadel.events import EventLog
from gateway.demo.zitadel.login import Code, LoginPages
from gateway.demo.zitadel.sessions import Session, Sessions
from gateway.demo.zitadel.settings import Settings
from gateway.demo.zitadel.switches import Switches
from gateway.demo.zitadel.users import User

_NO_STORE = {"cache-control": "no-store"}
_REFRESH_OVER = "Errors.OIDCSession.RefreshTokenInvalid"


@dataclass(slots=True)
class Grant:
    """Zitadel's OIDC session: one access token and one refresh token are good at a time."""

    login: LoginSession
    app: App
    user: User
    nonce: str
    access: str = field(repr=False)
    refresh: str = field(repr=False)
    begun: float
    used: float


class Grants:
    """Hands out tokens and takes them back."""

    def __init__(
        self,
        office: TokenIssuer,
        clients: Clients,
        pages: LoginPages,
        sessions: Sessions,
        settings: Settings,
        switches: Switches,
        log: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self.grants: list[Grant] = []
        self._office, self._clients, self._pages, self._sessions = office, clients, pages, sessions
        self._settings, self._switches, self._log, self._clock = settings, switches, log, clock

    async def token(self, request: Request, form: Mapping[str, str]) -> Response:
        """RFC 6749 sections 4.1.3 and 6."""
        app = self._clients.known(request, form)
        if app is None:
            return JSONResponse(BAD_CLIENT, 401)
        if form.get("grant_type") == "refresh_token":
            return self._refresh(app, form)
        return self._redeem(app, form)

    def _redeem(self, app: App, form: Mapping[str, str]) -> Response:
        # A code is used once, whoever shows it.
        code = self._pages.codes.pop(form.get("code", ""), None)
        if code is None or code.expires <= self._clock():
            return _invalid("Errors.AuthRequest.NoCode")
        wanted = code.request
        if wanted.client != app.client_id or wanted.redirect_uri != form.get("redirect_uri"):
            return _invalid("Errors.AuthRequest.ClientMismatch")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if not secrets.compare_digest(_b64(digest), wanted.challenge):
            return _invalid("Errors.User.Code.Invalid")
        user = code.session.user
        if user is None or self._sessions.live(code.session.id) is None or user.person.subject in self._office.barred:
            return _invalid("Errors.User.NotActive")
        grant = self._grant(app, code, user)
        self.grants.append(grant)
        return self._answer(grant)

    def _grant(self, app: App, code: Code, user: User) -> Grant:
        session, wanted, now = code.session, code.request, self._clock()
        # Zitadel C16: sid is the Session API's id; amr and auth_time come from its factors, and acr is never set.
        auth_time = None if session.auth_time is None or self._switches.no_auth_time else int(session.auth_time)
        amr = () if self._switches.empty_amr else session.amr
        name = f"V2_{snowflake()}"
        login = LoginSession(user.person, name, session.id, auth_time, amr, app.client_id, wanted.scope)
        payload = {
            "userID": user.person.subject,
            "sessionID": session.id,
            "clientID": app.client_id,
            "scope": wanted.scope.split(),
        }
        self._log.add("oidc_session.added", "oidc_session", name, payload)
        return Grant(login, app, user, wanted.nonce, "", "", now, now)

    def _answer(self, grant: Grant) -> Response:
        life_s = self._settings.life_s("accessTokenLifetime")
        # Zitadel C6: a JWT or an opaque token, as the client is set.
        opaque = grant.app.settings.get("accessTokenType") != JWT
        token, grant.access = self._office.issue(grant.login, opaque=opaque, life_s=life_s)
        answer: dict[str, Any] = {"access_token": token, "token_type": "Bearer", "expires_in": int(life_s)}
        if "offline_access" in grant.login.scope.split():
            grant.refresh, grant.used = secrets.token_urlsafe(48), self._clock()
            answer["refresh_token"] = grant.refresh
        answer["id_token"] = self._id_token(grant, token)
        return JSONResponse(answer, headers=_NO_STORE)

    def _id_token(self, grant: Grant, access: str) -> str:
        now, login = int(self._clock()), grant.login
        claims: dict[str, Any] = {
            "iss": self._office.issuer,
            "sub": login.person.subject,
            "aud": self._office.audience(login.client),
            "exp": now + int(self._settings.life_s("idTokenLifetime")),
            "iat": now,
            "azp": login.client,
            "client_id": login.client,
            "at_hash": _b64(hashlib.sha256(access.encode()).digest()[:16]),
            "sid": login.sid,
        }
        claims |= {"nonce": grant.nonce} if grant.nonce else {}
        claims |= {"auth_time": login.auth_time} if login.auth_time is not None else {}
        claims |= {"amr": list(login.amr)} if login.amr else {}
        if grant.app.settings.get("idTokenRoleAssertion"):
            claims |= self._office.assertions(login.person)
        return self._office.keys[0].sign(claims)

    def _refresh(self, app: App, form: Mapping[str, str]) -> Response:
        shown = form.get("refresh_token", "").encode()
        known = [one for one in self.grants if one.refresh and secrets.compare_digest(one.refresh.encode(), shown)]
        # Zitadel C8: reuse of a refresh token is refused, and the family lives on (7321).
        if not known or known[0].app is not app or not self._lives(known[0]):
            return _invalid(_REFRESH_OVER)
        grant = known[0]
        # Zitadel C8: refreshing kills the previous access token at once (9331).
        self._office.withdraw(grant.access)
        return self._answer(grant)

    def _lives(self, grant: Grant) -> bool:
        now = self._clock()
        in_time = now - grant.used < self._settings.life_s("refreshTokenIdleExpiration")
        in_time &= now - grant.begun < self._settings.life_s("refreshTokenExpiration")
        return in_time and not grant.login.ended and grant.user.person.subject not in self._office.barred

    def ended(self, session: Session) -> list[Grant]:
        """Everything of this session is over; what that was."""
        ended = [grant for grant in self.grants if grant.login.sid == session.id]
        for grant in ended:
            grant.login.ended, grant.refresh = True, ""
        self.grants = [grant for grant in self.grants if grant not in ended]
        return ended

    # ---- revoke, userinfo, end_session ----

    async def revoke(self, request: Request) -> Response:
        """RFC 7009. Zitadel C8: revoking the refresh token kills the access token too."""
        form = await read_form(request)
        app = self._clients.known(request, form)
        if app is None:
            return JSONResponse(BAD_CLIENT, 401)
        token = form.get("token", "")
        known = self._office.issued(token)
        for grant in self.grants:
            if grant.app is not app:
                continue
            if grant.refresh and secrets.compare_digest(grant.refresh.encode(), token.encode()):
                grant.refresh = ""
                self._office.withdraw(grant.access)
                self._log.add("oidc_session.refresh_token.revoked", "oidc_session", grant.login.id)
            elif known is not None and known[0] == grant.access:
                self._office.withdraw(grant.access)
                self._log.add("oidc_session.access_token.revoked", "oidc_session", grant.login.id)
        return Response(status_code=200)

    async def userinfo(self, request: Request) -> Response:
        """OpenID Connect Core section 5.3. Zitadel C1: 401 when the token is not active."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = self._office.issued(token) if scheme.lower() == "bearer" else None
        if known is None:
            return JSONResponse({"error": "access_denied", "error_description": "access token invalid"}, 401)
        person = known[1].session.person
        names = {"name": person.name, "preferred_username": person.user, "email": person.email, "email_verified": True}
        return JSONResponse({"sub": person.subject, **names, **self._office.assertions(person)})

    async def end_session(self, request: Request) -> Response:
        """RP-Initiated Logout 1.0. Zitadel C1: an expired hint is taken; client_id must equal its azp; exact URIs."""
        given = dict(request.query_params) | (await read_form(request) if request.method == "POST" else {})
        hint = self._office.own(given.get("id_token_hint", ""))
        client = given.get("client_id") or hint.get("azp", "")
        app = self._clients.named(client)
        if app is None or (hint and hint.get("azp") != client):
            return _bad("client_id does not match azp of id_token_hint")
        back = given.get("post_logout_redirect_uri", "")
        if back and back not in app.uris("postLogoutRedirectUris"):
            return _bad("post_logout_redirect_uri invalid")
        session = self._sessions.live(str(hint.get("sid", "")))
        if session is not None:
            self._sessions.end(session)
        state = {"state": given["state"]} if given.get("state") else {}
        target = back + (f"{'&' if '?' in back else '?'}{urlencode(state)}" if state else "")
        return RedirectResponse(target or "/ui/v2/login/logout/done", 302)


def _b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _invalid(why: str) -> Response:
    return JSONResponse({"error": "invalid_grant", "error_description": why}, 400, headers=_NO_STORE)


def _bad(why: str) -> Response:
    return JSONResponse({"error": "invalid_request", "error_description": why}, 400)
