"""Authorization requests of the emulated instance, the login page, and CreateCallback for login clients."""

from __future__ import annotations

import html
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.demo.idp.token_issuer import snowflake
from gateway.demo.zitadel.apps import Apps
from gateway.demo.zitadel.sessions import Session, Sessions
from gateway.demo.zitadel.settings import Settings
from gateway.demo.zitadel.switches import Switches
from gateway.demo.zitadel.wire import INVALID, NOT_FOUND, PRECONDITION, ApiError, Call, Endpoint

LOGIN_PATH, COOKIE = "/ui/v2/login/login", "zitadel-login"
_REQUEST_LIFE_S, _CODE_LIFE_S = 1_800.0, 60.0


@dataclass(slots=True)
class AuthRequest:
    """An authorization request that waits for a session."""

    id: str
    client: str
    redirect_uri: str
    scope: str
    state: str
    nonce: str
    challenge: str
    max_age: float | None
    prompt: str
    expires: float


@dataclass(slots=True)
class Code:
    """What an authorization code stands for."""

    request: AuthRequest
    session: Session
    expires: float
    name: str = field(repr=False)


class LoginPages:
    """The authorization endpoint and what follows, up to the code."""

    def __init__(
        self,
        issuer: str,
        apps: Apps,
        sessions: Sessions,
        settings: Settings,
        switches: Switches,
        clock: Callable[[], float],
    ) -> None:
        self.codes: dict[str, Code] = {}
        self._requests: dict[str, AuthRequest] = {}
        self._issuer, self._apps, self._sessions = issuer, apps, sessions
        self._settings, self._switches, self._clock = settings, switches, clock

    def routes(self) -> list[Route]:
        """For browsers."""
        return [
            Route("/oauth/v2/authorize", self.authorize, methods=["GET", "POST"]),
            Route(LOGIN_PATH, self._page, methods=["GET"]),
            Route(LOGIN_PATH, self._submit, methods=["POST"]),
        ]

    def endpoints(self) -> list[Endpoint]:
        """Zitadel C17: CreateCallback needs IAM_LOGIN_CLIENT, which lets its holder log anybody in."""
        service = "/zitadel.oidc.v2.OIDCService"
        return [
            Endpoint("POST", f"{service}/CreateCallback", "login", self._create_callback),
            Endpoint("POST", "/v2/oidc/auth_requests/{id}", "login", self._create_callback),
            Endpoint("POST", f"{service}/GetAuthRequest", "login", self._get_request),
        ]

    async def authorize(self, request: Request) -> Response:
        """RFC 6749 section 4.1.1 with PKCE S256; an unknown client or redirect URI never redirects."""
        given = dict(request.query_params)
        if request.method == "POST":
            given = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        app = self._apps.by_client.get(given.get("client_id", ""))
        if app is None or app.kind != "oidcConfiguration":
            return _refused("Errors.App.NotFound")
        # Zitadel C1: redirect URIs are compared exactly.
        if given.get("redirect_uri") not in app.uris("redirectUris"):
            return _refused("The requested redirect_uri is missing in the client configuration.")
        wanted, problem = self._read(given)
        if problem:
            return self._back(wanted, {"error": problem[0], "error_description": problem[1]})
        session = self._remembered(request, wanted)
        if session is not None:
            return RedirectResponse(self.callback(wanted, session), 302)
        if wanted.prompt == "none":
            return self._back(wanted, {"error": "login_required", "error_description": "Errors.LoginRequired"})
        self._requests[wanted.id] = wanted
        # Zitadel C17: Login V2 gets the request's id in `authRequest`.
        return RedirectResponse(f"{self._issuer}{LOGIN_PATH}?authRequest={wanted.id}", 302)

    def _read(self, given: Mapping[str, str]) -> tuple[AuthRequest, tuple[str, str] | None]:
        age = given.get("max_age", "")
        wanted = AuthRequest(
            f"V2_{snowflake()}",
            given["client_id"],
            given["redirect_uri"],
            given.get("scope", ""),
            given.get("state", ""),
            given.get("nonce", ""),
            given.get("code_challenge", ""),
            float(age) if age.isdigit() else None,
            given.get("prompt", ""),
            self._clock() + _REQUEST_LIFE_S,
        )
        if given.get("response_type") != "code":
            return wanted, ("unsupported_response_type", "Errors.AuthRequest.ResponseType")
        if "openid" not in wanted.scope.split():
            return wanted, ("invalid_scope", "The scope openid is missing in your request.")
        # Zitadel C1: PKCE is S256 only.
        if not wanted.challenge or given.get("code_challenge_method") != "S256":
            return wanted, ("invalid_request", "code_challenge with S256 is needed")
        return wanted, None

    def _remembered(self, request: Request, wanted: AuthRequest) -> Session | None:
        if wanted.prompt in {"login", "select_account"}:
            return None
        name, _, token = request.cookies.get(COOKIE, "").partition(".")
        try:
            session = self._sessions.proven(name, token)
        except ApiError:
            return None
        auth_time = session.auth_time
        # Zitadel C16: Login V2 has ignored max_age (12258); a switch here.
        if wanted.max_age is not None and not self._switches.ignore_max_age:
            return session if auth_time is not None and self._clock() - auth_time <= wanted.max_age else None
        return session

    def callback(self, wanted: AuthRequest, session: Session) -> str:
        """The redirect URI with a code for this session."""
        code = secrets.token_urlsafe(32)
        self._requests.pop(wanted.id, None)
        self.codes[code] = Code(wanted, session, self._clock() + _CODE_LIFE_S, code)
        # Zitadel C1: no RFC 9207 `iss`.
        return _with_query(wanted.redirect_uri, {"code": code, "state": wanted.state})

    def _back(self, wanted: AuthRequest, error: Mapping[str, str]) -> Response:
        return RedirectResponse(_with_query(wanted.redirect_uri, {**error, "state": wanted.state}), 302)

    # ---- the page ----

    async def _page(self, request: Request) -> Response:
        wanted = self._waiting(request.query_params.get("authRequest", ""))
        return _refused("Errors.AuthRequest.NotExisting") if wanted is None else _form(wanted.id, "")

    async def _submit(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        wanted = self._waiting(form.get("authRequest", ""))
        if wanted is None:
            return _refused("Errors.AuthRequest.NotExisting")
        checks = {
            "user": {"loginName": form.get("loginName", "")},
            "password": {"password": form.get("password", "")},
        }
        if form.get("code"):
            checks["totp"] = {"code": form["code"]}
        elif self._settings.forces_mfa:
            return _form(wanted.id, "A second factor is needed.", 403)
        try:
            session = self._sessions.begin(checks)
        except ApiError as error:
            return _form(wanted.id, error.message, 403)
        answer = RedirectResponse(self.callback(wanted, session), 302)
        answer.set_cookie(COOKIE, f"{session.id}.{session.token}", httponly=True, samesite="lax")
        return answer

    def _waiting(self, name: str) -> AuthRequest | None:
        found = self._requests.get(name)
        return found if found is not None and found.expires > self._clock() else None

    # ---- the API ----

    def _create_callback(self, call: Call) -> dict[str, str]:
        wanted = self._waiting(call.body.get("authRequestId") or call.path.get("id", ""))
        if wanted is None:
            raise ApiError(NOT_FOUND, "Errors.AuthRequest.NotExisting", "COMMAND-jae5P")
        if "error" in call.body:
            self._requests.pop(wanted.id)
            error = {"error": "access_denied", "state": wanted.state}
            return {"callbackUrl": _with_query(wanted.redirect_uri, error)}
        proof = call.body["session"]
        session = self._sessions.proven(proof["sessionId"], proof["sessionToken"])
        # Zitadel C17: a session with just a `user` check is enough here, and gives tokens without amr and auth_time.
        if session.user is None:
            raise ApiError(PRECONDITION, "Errors.Session.UserMissing", "COMMAND-user0")
        return {"callbackUrl": self.callback(wanted, session)}

    def _get_request(self, call: Call) -> dict[str, object]:
        wanted = self._waiting(str(call.body.get("authRequestId", "")))
        if wanted is None:
            raise ApiError(INVALID, "Errors.AuthRequest.NotExisting", "COMMAND-jae5P")
        told = {"id": wanted.id, "clientId": wanted.client, "redirectUri": wanted.redirect_uri}
        return {"authRequest": {**told, "scope": wanted.scope.split()}}


def _refused(why: str) -> Response:
    return JSONResponse({"error": "invalid_request", "error_description": why}, 400)


def _with_query(uri: str, query: Mapping[str, str]) -> str:
    text = urlencode({name: value for name, value in query.items() if value})
    return f"{uri}{'&' if '?' in uri else '?'}{text}"


def _form(name: str, problem: str, status: int = 200) -> Response:
    said = f'<p role="alert">{html.escape(problem)}</p>' if problem else ""
    page = f"""<!doctype html><html lang="en"><title>Sign in (development)</title><main><h1>Sign in</h1>{said}
<form method="post" action="{LOGIN_PATH}"><input type="hidden" name="authRequest" value="{html.escape(name)}">
<p><label>Login name <input name="loginName" autocomplete="username" required></label></p>
<p><label>Password <input name="password" type="password" autocomplete="current-password" required></label></p>
<p><label>One-time code, if any <input name="code" inputmode="numeric" autocomplete="one-time-code"></label></p>
<p><button>Sign in</button></p></form></main></html>"""
    return HTMLResponse(page, status)
