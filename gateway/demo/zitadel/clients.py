"""How clients of the emulated instance authenticate: Basic, post, private_key_jwt, or not at all."""

from __future__ import annotations

import secrets
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import jwt
from starlette.requests import Request

from gateway.demo.zitadel.apps import App, Apps

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
BAD_CLIENT = {"error": "invalid_client", "error_description": "client authentication failed"}


class Clients:
    """Knows clients by what they show."""

    def __init__(self, apps: Apps, issuer: str, clock: Callable[[], float]) -> None:
        self._apps, self._issuer, self._clock = apps, issuer, clock
        self._used: set[str] = set()

    def known(self, request: Request, form: Mapping[str, str]) -> App | None:
        """The client, None for a stranger."""
        if form.get("client_assertion_type") == ASSERTION_TYPE:
            return self._by_assertion(form.get("client_assertion", ""))
        pair = basic(request) or (form.get("client_id", ""), form.get("client_secret", ""))
        app = self._apps.by_client.get(pair[0])
        if app is None:
            return None
        if app.settings.get("authMethodType") == "OIDC_AUTH_METHOD_TYPE_NONE":
            return app if not pair[1] else None
        return app if secrets.compare_digest(pair[1].encode(), app.secret.encode()) else None

    def named(self, client_id: str) -> App | None:
        """The client of this id, not authenticated."""
        return self._apps.by_client.get(client_id)

    def _by_assertion(self, assertion: str) -> App | None:
        """Zitadel C1: iss = sub = client id, aud has the issuer, iat at most an hour old and one second ahead."""
        options: Any = {"require": ["iss", "sub", "aud", "iat", "exp"], "verify_iat": False, "verify_exp": False}
        try:
            kid = jwt.get_unverified_header(assertion).get("kid")
            app = next((one for one in self._apps.by_client.values() if one.key and one.key.kid == kid), None)
            if app is None or app.key is None:
                return None
            public = app.key.private.public_key()
            claims = jwt.decode(assertion, public, ["RS256"], audience=self._issuer, options=options)
        except jwt.PyJWTError:
            return None
        now, used = self._clock(), claims.get("jti") in self._used
        self._used.add(str(claims.get("jti")))
        in_time = now - 3_600 <= claims["iat"] <= now + 1 and claims["exp"] > now
        return app if in_time and not used and claims["iss"] == claims["sub"] == app.client_id else None


async def read_form(request: Request) -> dict[str, str]:
    """A form body; of a repeated field the last."""
    return dict(parse_qsl((await request.body()).decode("utf-8", errors="replace"), keep_blank_values=True))


def basic(request: Request) -> tuple[str, str] | None:
    """The client id and secret of HTTP Basic; both halves are form-urlencoded (RFC 6749 section 2.3.1)."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    try:
        name, mark, secret = b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (unquote_plus(name), unquote_plus(secret)) if scheme.lower() == "basic" and mark else None
