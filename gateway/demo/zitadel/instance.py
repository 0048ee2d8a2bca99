"""The emulated instance as a whole: what it is made of, its routes, and what demos and tests may order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.demo.idp.accounts import APP_CLIENT, SECOND_CLIENT
from gateway.demo.idp.token_issuer import TokenIssuer
from gateway.demo.zitadel.actions import Actions
from gateway.demo.zitadel.apps import JWT, OPAQUE, App, Apps
from gateway.demo.zitadel.backchannel import LogoutSender
from gateway.demo.zitadel.clients import Clients
from gateway.demo.zitadel.courier import Courier
from gateway.demo.zitadel.events import EventLog
from gateway.demo.zitadel.grants import Grants
from gateway.demo.zitadel.login import LoginPages
from gateway.demo.zitadel.sessions import Session, Sessions
from gateway.demo.zitadel.settings import Settings
from gateway.demo.zitadel.switches import Switches
from gateway.demo.zitadel.users import Users
from gateway.demo.zitadel.webkeys import WebKeys
from gateway.demo.zitadel.wire import NOT_FOUND, ApiError, error_answer, routes

type Handler = Callable[[Request], Awaitable[Response]]


class Instance:
    """One instance over one token office."""

    def __init__(self, office: TokenIssuer, clock: Callable[[], float]) -> None:
        self.office = office
        self.switches = Switches()
        self.courier = Courier(self.switches)
        self.log = EventLog(clock)
        self.settings = Settings()
        self.apps = Apps(office, self.courier, clock)
        self.users = Users(office.people.values(), self.log, office.barred, clock)
        self.sessions = Sessions(self.users, self.log, self.switches, clock, lambda: self.settings.password_attempts)
        self.actions = Actions(self.courier, self.switches, clock)
        self.log.listeners.append(self.actions.heard)
        self.logout = LogoutSender(office, self.courier, clock)
        self.pages = LoginPages(office.issuer, self.apps, self.sessions, self.settings, self.switches, clock)
        self.clients = Clients(self.apps, office.issuer, clock)
        self.grants = Grants(
            office, self.clients, self.pages, self.sessions, self.settings, self.switches, self.log, clock
        )
        self.webkeys = WebKeys(office)
        self.sessions.ended.append(self._session_ended)
        self.owner_token = self.apps.machine("bootstrap", ["IAM_OWNER"])
        self.login_token = self.apps.machine("login-client", ["IAM_LOGIN_CLIENT"])
        self._clock = clock
        for client, name in ((APP_CLIENT, "Web"), (SECOND_CLIENT, "Second")):
            settings = {"accessTokenType": JWT, "accessTokenRoleAssertion": True, "idTokenRoleAssertion": True}
            self.apps.register(client, name, "oidcConfiguration", settings)

    def app(
        self,
        *,
        redirect: str,
        post_logout: str = "",
        logout_uri: str = "",
        opaque: bool = False,
        client: str = APP_CLIENT,
        secret: str = "",
    ) -> App:
        """Where a client's people come back to and where it hears of logouts. Raises ApiError on the deny list.

        `secret` replaces the client's own.
        """
        app = self.apps.by_client[client]
        settings: dict[str, Any] = {
            "redirectUris": [redirect],
            "postLogoutRedirectUris": [post_logout] if post_logout else [],
            "backChannelLogoutUri": logout_uri,
            "accessTokenType": OPAQUE if opaque else JWT,
        }
        self.apps.check(settings)
        app.settings |= settings
        app.secret = secret or app.secret
        return app

    def end_sessions(self, subject: str) -> None:
        """End every session of a user."""
        for session in list(self.sessions.by_id.values()):
            if session.user is not None and session.user.person.subject == subject:
                self.sessions.end(session)

    def code(self, user: str) -> str:
        """The person's one-time code of this moment, good once more: nobody waits half a minute between two tests."""
        found = self.users.by_id[self.office.people[user].subject]
        found.last_code = -1
        return found.code(self._clock())

    def _session_ended(self, session: Session) -> None:
        """Zitadel C11: back-channel logout goes to every client with tokens of the session, on its end alone."""
        for grant in self.grants.ended(session):
            uri = grant.app.settings.get("backChannelLogoutUri", "")
            if uri:
                self.logout.send(uri, grant.login.person.subject, session.id, grant.app.client_id)

    def routes(self, breakable: Callable[[str, Handler], Handler]) -> list[Route]:
        """Everything but discovery, keys, token and introspection, which the provider has."""
        parts = (self.sessions, self.users, self.log, self.actions, self.settings, self.apps, self.webkeys, self.pages)
        endpoints = [endpoint for part in parts for endpoint in part.endpoints()]
        return [
            *self.pages.routes(),
            Route("/oauth/v2/revoke", breakable("revoke", self.grants.revoke), methods=["POST"]),
            Route("/oidc/v1/userinfo", breakable("userinfo", self.grants.userinfo), methods=["GET", "POST"]),
            Route("/oidc/v1/end_session", breakable("end_session", self.grants.end_session), methods=["GET", "POST"]),
            *routes(endpoints, self.apps.holder),
        ]

    def order(self, action: str, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        """What demos may order; None for an unknown action.

        switch {"name","value"}; app {"redirect","post_logout","logout_uri","opaque","secret"}; code {"user"};
        lock, unlock, deactivate, reactivate, remove {"user"}; password {"user","password"}; roles {"user","roles"}.
        Raises KeyError, TypeError, ValueError for a malformed order or one that is refused.
        """
        if action == "switch":
            self.switches.set(wanted["name"], wanted["value"])
            return {"done": action}
        if action == "app":
            found = self.app(**wanted)
            return {"client_id": found.client_id, "secret": found.secret}
        if action == "code":
            return {"code": self.code(wanted["user"])}
        if action not in {"lock", "unlock", "deactivate", "reactivate", "remove", "password", "roles"}:
            return None
        subject = self.office.people[wanted["user"]].subject
        try:
            match action:
                case "remove":
                    self.users.remove(subject)
                case "password":
                    self.users.change_password(subject, wanted["password"])
                case "roles":
                    self.users.change_roles(subject, list(wanted["roles"]))
                case _:
                    self.users.move(subject, action)
        except ApiError as error:
            raise ValueError(error.message) from error
        return {"done": action}


class HostGuard:
    """In front of everything: the instance is known by its Host; and faults that concern every answer."""

    def __init__(self, app: ASGIApp, instance: Instance) -> None:
        self._app, self._instance = app, instance
        self._host = urlsplit(instance.office.issuer).netloc

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Zitadel C16: another Host than the public one is 404 "Instance not found"; x-zitadel-instance-host counts."""
        if scope["type"] != "http" or scope["path"].startswith("/dev/"):
            await self._app(scope, receive, send)
            return
        headers, switches = Headers(scope=scope), self._instance.switches
        await asyncio.sleep(switches.slow_s)
        if switches.unavailable:
            await JSONResponse({"code": 14, "message": "unavailable"}, 503)(scope, receive, send)
        elif (headers.get("x-zitadel-instance-host") or headers.get("host")) != self._host:
            error = ApiError(NOT_FOUND, "Instance not found", "QUERY-n0wng")
            await error_answer(error, is_connect=False)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
