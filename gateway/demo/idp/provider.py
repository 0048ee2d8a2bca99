"""A development OpenID provider that speaks Zitadel's shapes, on loopback, over plain http. Never for production.

`python -m gateway.demo.idp.provider --port N` serves one and prints its URL. POST /dev/... is for demos and tests: it
hands out tokens for anybody, ends sessions, rotates keys and breaks endpoints on purpose.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.demo.idp.accounts import API_CLIENT, APP_CLIENT, MACHINE_CLIENT, OTHER_PROJECT, PROJECT
from gateway.demo.idp.token_issuer import LIFE_S, Key, TokenIssuer
from gateway.demo.zitadel.clients import BAD_CLIENT, basic, read_form
from gateway.demo.zitadel.instance import HostGuard, Instance

_FAULTS = frozenset({"empty", "500", "garbage", "slow", "401", "issuer", "huge", "redirect"})

type _Handler = Callable[[Request], Awaitable[Response]]


class DevProvider(TokenIssuer):
    """The provider: everything of `TokenIssuer`, an ASGI `app`, and faults to order.

    `asked` counts requests by endpoint: "discovery", "keys", "token", "introspect".
    """

    def __init__(self, issuer_url: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(issuer_url, lambda: clock() + self.instance.switches.skew_s)
        self.project, self.app_client = PROJECT, APP_CLIENT
        self.api_client, self.api_secret = API_CLIENT, secrets.token_urlsafe(24) + "/+ %"
        self.machine_client, self.machine_secret = MACHINE_CLIENT, secrets.token_urlsafe(24)
        self.asked: Counter[str] = Counter()
        self._now = clock
        self._api_key = Key()
        self._faults: dict[str, str] = {}
        self.instance = Instance(self, self._clock)
        self.app_secret = self.instance.apps.by_client[APP_CLIENT].secret
        api = self.instance.apps.register(API_CLIENT, "Gateway introspection", "apiConfiguration", {})
        api.secret, api.key = self.api_secret, self._api_key
        self.app = Starlette(
            middleware=[Middleware(HostGuard, instance=self.instance)],
            routes=[
                Route("/.well-known/openid-configuration", self._breakable("discovery", self._discovery)),
                Route("/oauth/v2/keys", self._breakable("keys", self._keys)),
                Route("/oauth/v2/token", self._breakable("token", self._token), methods=["POST"]),
                Route("/oauth/v2/introspect", self._breakable("introspect", self._introspect), methods=["POST"]),
                Route("/dev/client", self._dev_client),
                Route("/dev/{action}", self._dev, methods=["POST"]),
                *self.instance.routes(self._breakable),
            ],
        )

    @property
    def api_key_file(self) -> bytes:
        """The API application's key file (JSON), as Zitadel hands it out."""
        document = {
            "type": "application",
            "keyId": self._api_key.kid,
            "key": self._api_key.pem(),
            "appId": "243864426485299000",
            "clientId": self.api_client,
        }
        return json.dumps(document).encode()

    def fault(self, endpoint: str, kind: str | None) -> None:
        """Break "discovery", "keys", "token", "introspect", "revoke", "userinfo" or "end_session"; None mends it.

        Kinds: empty, 500, 401, garbage, huge, redirect, issuer (discovery names another one), slow (until mended).
        """
        if kind is None:
            self._faults.pop(endpoint, None)
        elif kind in _FAULTS:
            self._faults[endpoint] = kind
        else:
            raise ValueError(f"no such fault: {kind}")

    def mend(self) -> None:
        """Mend everything."""
        self._faults.clear()
        self.instance.switches.reset()

    def end_session(self, user: str) -> None:
        """End every session of the person: those of the token office, and those of the Session API."""
        super().end_session(user)
        self.instance.end_sessions(self.people[user].subject)

    # ---- endpoints ----

    def _breakable(self, name: str, handler: _Handler) -> _Handler:
        async def answer(request: Request) -> Response:
            self.asked[name] += 1
            while self._faults.get(name) == "slow":  # noqa: ASYNC110  (mended from other threads)
                await asyncio.sleep(0.02)
            match self._faults.get(name):
                case "500":
                    return JSONResponse({"error": "server_error"}, 500)
                case "401":
                    return JSONResponse(BAD_CLIENT, 401)
                case "garbage":
                    return Response(b'{"keys": [{"kty"\xff\xfe', media_type="application/json")
                case "huge":
                    return Response(b" " * (2 << 20) + b"{}", media_type="application/json")
                case "redirect":
                    return Response(status_code=302, headers={"location": "/oauth/v2/keys"})
                case "empty":
                    return JSONResponse({"keys": []} if name == "keys" else {})
                case _:
                    return await handler(request)

        return answer

    async def _discovery(self, _: Request) -> Response:
        named = "https://elsewhere.invalid" if self._faults.get("discovery") == "issuer" else self.issuer
        paths = {
            "authorization_endpoint": "/oauth/v2/authorize",
            "token_endpoint": "/oauth/v2/token",
            "introspection_endpoint": "/oauth/v2/introspect",
            "userinfo_endpoint": "/oidc/v1/userinfo",
            "revocation_endpoint": "/oauth/v2/revoke",
            "end_session_endpoint": "/oidc/v1/end_session",
            "device_authorization_endpoint": "/oauth/v2/device_authorization",
            "jwks_uri": "/oauth/v2/keys",
        }
        methods = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]
        return JSONResponse(
            {
                "issuer": named,
                **{name: self.issuer + path for name, path in paths.items()},
                "scopes_supported": ["openid", "profile", "email", "phone", "address", "offline_access"],
                "response_types_supported": ["code", "id_token", "id_token token"],
                "response_modes_supported": ["query", "fragment", "form_post"],
                "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [
                    "EdDSA",
                    *(kind + size for kind in ("RS", "ES") for size in ("256", "384", "512")),
                ],
                "request_object_signing_alg_values_supported": ["RS256"],
                "token_endpoint_auth_methods_supported": methods,
                "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
                "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
                "revocation_endpoint_auth_methods_supported": methods,
                "code_challenge_methods_supported": ["S256"],
                "request_parameter_supported": True,
                "request_uri_parameter_supported": False,
                "ui_locales_supported": ["en"],
                "backchannel_logout_supported": True,
                "backchannel_logout_session_supported": True,
            }
        )

    async def _keys(self, _: Request) -> Response:
        headers = {"cache-control": "max-age=300, must-revalidate"}
        return JSONResponse({"keys": [key.jwk() for key in self.keys]}, headers=headers)

    async def _token(self, request: Request) -> Response:
        form = await read_form(request)
        if form.get("grant_type") in {"authorization_code", "refresh_token"}:
            return await self.instance.grants.token(request, form)
        if form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        pair = basic(request)
        known = (self.machine_client, self.machine_secret)
        if pair is None or not secrets.compare_digest("\n".join(pair).encode(), "\n".join(known).encode()):
            return JSONResponse(BAD_CLIENT, 401)
        token = self.access_token(self.machine_client, client_id=self.machine_client)
        headers = {"cache-control": "no-store"}
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": LIFE_S}, headers=headers)

    async def _introspect(self, request: Request) -> Response:
        form = await read_form(request)
        client = self.instance.clients.known(request, form)
        if client is None or client.settings.get("authMethodType") == "OIDC_AUTH_METHOD_TYPE_NONE":
            return JSONResponse(BAD_CLIENT, 401)
        return JSONResponse(self.introspect(form.get("token", ""), client.client_id))

    # ---- for demos and tests alone ----

    async def _dev_client(self, _: Request) -> Response:
        """How a gateway introspects here."""
        document = {
            "issuer": self.issuer,
            "project": self.project,
            "client_id": self.api_client,
            "secret": self.api_secret,
            "key_file": json.loads(self.api_key_file),
            "login": {"client_id": APP_CLIENT, "secret": self.app_secret},
            "owner_token": self.instance.owner_token,
            "login_token": self.instance.login_token,
            "asked": self.asked,
        }
        return JSONResponse(document)

    async def _dev(self, request: Request) -> Response:
        """Orders: token, end-session, rotate, fault, and those of the instance."""
        kinds: dict[str, Callable[[str], str]] = {
            "jwt": self.access_token,
            "opaque": self.opaque_token,
            "expired": self.expired_token,
            "alg_none": self.unsigned_token,
            "foreign": self.foreign_token,
            "audience": lambda user: self.access_token(user, aud=[OTHER_PROJECT]),
            "id_token": self.id_token,
            "logout_token": self.logout_token,
            "bound": lambda user: self.access_token(user, cnf=wanted["cnf"]),
        }
        try:
            wanted = json.loads(await request.body() or b"{}")
            match request.path_params["action"]:
                case "token":
                    return JSONResponse({"token": kinds[wanted.get("kind", "jwt")](wanted["user"])})
                case "end-session":
                    self.end_session(wanted["user"])
                case "rotate":
                    self.rotate_keys()
                case "fault":
                    self.fault(wanted["endpoint"], wanted["kind"])
                case action:
                    answer = self.instance.order(action, wanted)
                    return JSONResponse(answer or {"error": "no such action"}, 200 if answer else 404)
        except (ValueError, KeyError, TypeError, AttributeError):
            return JSONResponse({"error": "bad request"}, 400)
        return Response(status_code=204)


@contextmanager
def serving(port: int = 0, clock: Callable[[], float] = time.time) -> Iterator[DevProvider]:
    """A provider on 127.0.0.1, in a thread of its own, until the block ends. Port 0 picks a free one."""
    with socket.create_server(("127.0.0.1", port), backlog=512) as listener:
        # asyncio does it for sockets that name their protocol; these do not, and a body would wait 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        provider = DevProvider(f"http://127.0.0.1:{listener.getsockname()[1]}", clock)
        config = uvicorn.Config(
            provider.app, loop="asyncio", ws="none", lifespan="off", log_level="critical", access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="dev-provider", daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            provider.mend()
            server.should_exit = True
            thread.join()
            provider.instance.courier.close()


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m gateway.demo.idp.provider", description="A development provider.")
    parser.add_argument("--port", type=int, default=0, help="The port on 127.0.0.1; 0 picks a free one.")
    parser.add_argument("--ca", type=Path, help="PEM: the CA of those who are told of logouts and events.")
    wanted = parser.parse_args(arguments)
    with serving(wanted.port) as provider:
        if wanted.ca is not None:
            provider.instance.courier.context = ssl.create_default_context(cafile=wanted.ca)
        sys.stdout.write(f"{provider.issuer}\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
