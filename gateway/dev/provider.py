"""A development OpenID provider that speaks Zitadel's shapes, on loopback, over plain http. Never for production.

`python -m gateway.dev.provider --port N` serves one and prints its URL. POST /dev/... is for demos and tests: it hands
out tokens for anybody, ends sessions, rotates keys and breaks endpoints on purpose.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import socket
import sys
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.dev.people import API_CLIENT, APP_CLIENT, MACHINE_CLIENT, OTHER_PROJECT, PROJECT
from gateway.dev.tokens import LIFE_S, Key, TokenOffice

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_FAULTS = frozenset({"empty", "500", "garbage", "slow", "401", "issuer", "huge", "redirect"})
_BAD_CLIENT = {"error": "invalid_client", "error_description": "client authentication failed"}

type _Handler = Callable[[Request], Awaitable[Response]]


class DevProvider(TokenOffice):
    """The provider: everything of `TokenOffice`, an ASGI `app`, and faults to order.

    `asked` counts requests by endpoint: "discovery", "keys", "token", "introspect".
    """

    def __init__(self, issuer_url: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(issuer_url, clock)
        self.project, self.app_client = PROJECT, APP_CLIENT
        self.api_client, self.api_secret = API_CLIENT, secrets.token_urlsafe(24) + "/+ %"
        self.machine_client, self.machine_secret = MACHINE_CLIENT, secrets.token_urlsafe(24)
        self.asked: Counter[str] = Counter()
        self._now = clock
        self._api_key = Key()
        self._faults: dict[str, str] = {}
        self._assertions: set[str] = set()
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._breakable("discovery", self._discovery)),
                Route("/oauth/v2/keys", self._breakable("keys", self._keys)),
                Route("/oauth/v2/token", self._breakable("token", self._token), methods=["POST"]),
                Route("/oauth/v2/introspect", self._breakable("introspect", self._introspect), methods=["POST"]),
                Route("/dev/client", self._dev_client),
                Route("/dev/{action}", self._dev, methods=["POST"]),
            ]
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
        """Break "discovery", "keys", "token" or "introspect"; None mends it.

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
                    return JSONResponse(_BAD_CLIENT, 401)
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
                "grant_types_supported": ["client_credentials"],
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
        form = await _form(request)
        pair = _basic(request)
        known = (self.machine_client, self.machine_secret)
        if pair is None or not secrets.compare_digest("\n".join(pair).encode(), "\n".join(known).encode()):
            return JSONResponse(_BAD_CLIENT, 401)
        if form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        token = self.access_token(self.machine_client, client_id=self.machine_client)
        headers = {"cache-control": "no-store"}
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": LIFE_S}, headers=headers)

    async def _introspect(self, request: Request) -> Response:
        form = await _form(request)
        if not (self._knows_secret(_basic(request)) or self._knows_assertion(form)):
            return JSONResponse(_BAD_CLIENT, 401)
        return JSONResponse(self.introspect(form.get("token", ""), self.api_client))

    def _knows_secret(self, pair: tuple[str, str] | None) -> bool:
        if pair is None or pair[0] != self.api_client:
            return False
        return secrets.compare_digest(pair[1].encode(), self.api_secret.encode())

    def _knows_assertion(self, form: Mapping[str, str]) -> bool:
        """Zitadel: iss = sub = client id, aud has the issuer, iat at most an hour old and one second ahead."""
        if form.get("client_assertion_type") != _ASSERTION_TYPE:
            return False
        assertion = form.get("client_assertion", "")
        options: Any = {"require": ["iss", "sub", "aud", "iat", "exp"], "verify_iat": False, "verify_exp": False}
        try:
            kid = jwt.get_unverified_header(assertion).get("kid")
            claims = jwt.decode(
                assertion, self._api_key.private.public_key(), ["RS256"], audience=self.issuer, options=options
            )
        except jwt.PyJWTError:
            return False
        now, used = self._now(), claims.get("jti") in self._assertions
        self._assertions.add(str(claims.get("jti")))
        in_time = now - 3_600 <= claims["iat"] <= now + 1 and claims["exp"] > now
        return in_time and not used and kid == self._api_key.kid and claims["iss"] == claims["sub"] == self.api_client

    # ---- for demos and tests alone ----

    async def _dev_client(self, _: Request) -> Response:
        """How a gateway introspects here."""
        document = {
            "issuer": self.issuer,
            "project": self.project,
            "client_id": self.api_client,
            "secret": self.api_secret,
            "key_file": json.loads(self.api_key_file),
        }
        return JSONResponse(document)

    async def _dev(self, request: Request) -> Response:
        """/dev/token {"user","kind"}, /dev/end-session {"user"}, /dev/rotate {}, /dev/fault {"endpoint","kind"}."""
        kinds: dict[str, Callable[[str], str]] = {
            "jwt": self.access_token,
            "opaque": self.opaque_token,
            "expired": self.expired_token,
            "alg_none": self.unsigned_token,
            "foreign": self.foreign_token,
            "audience": lambda user: self.access_token(user, aud=[OTHER_PROJECT]),
            "id_token": self.id_token,
            "logout_token": self.logout_token,
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
                case _:
                    return JSONResponse({"error": "no such action"}, 404)
        except (ValueError, KeyError, TypeError, AttributeError):
            return JSONResponse({"error": "bad request"}, 400)
        return Response(status_code=204)


async def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode("utf-8", errors="replace"), keep_blank_values=True))


def _basic(request: Request) -> tuple[str, str] | None:
    """The client id and secret of HTTP Basic; both halves are form-urlencoded (RFC 6749 section 2.3.1)."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    try:
        name, mark, secret = b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (unquote_plus(name), unquote_plus(secret)) if scheme.lower() == "basic" and mark else None


@contextmanager
def serving(port: int = 0, clock: Callable[[], float] = time.time) -> Iterator[DevProvider]:
    """A provider on 127.0.0.1, in a thread of its own, until the block ends. Port 0 picks a free one."""
    with socket.create_server(("127.0.0.1", port), backlog=512) as listener:
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


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m gateway.dev.provider", description="A development provider.")
    parser.add_argument("--port", type=int, default=0, help="The port on 127.0.0.1; 0 picks a free one.")
    port: int = parser.parse_args(arguments).port
    with serving(port) as provider:
        sys.stdout.write(f"{provider.issuer}\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
