"""The gateway's own way into Zitadel's APIs: an access token, or a service account's key. And how asking can fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from gateway.core.ports.http import HttpClient, Unreachable
from gateway.identity.jose.jws import SigningKey
from gateway.identity.jose.strict_json import read_object

_SUCCESS = range(200, 300)
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPE = "openid urn:zitadel:iam:org:project:id:zitadel:aud"
_ASSERTION_LIFE_S, _BACKDATED_S, _EARLY_S = 60, 1, 30
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")


@dataclass(frozen=True, slots=True)
class ApiFailure:
    """Why Zitadel did not do what it was asked.

    `kind`: "unreachable" (no answer, or a 5xx), "garbled" (an answer that is none), "unauthenticated", "forbidden",
    "not_found", "exists", "unchanged", "precondition", "invalid", "blocked_url" (its deny list holds the address it
    was given), "wrong_host" (no instance of this name). `detail` is Zitadel's own text, without secrets.
    """

    kind: str
    detail: str = ""


class ApiToken(Protocol):
    """The gateway's own way into the APIs."""

    async def token(self) -> str | ApiFailure:
        """A bearer token."""

    def refused(self) -> bool:
        """Zitadel refused the last one: forget it. Whether asking for another one makes sense."""


class AccessToken:
    """A personal access token. Raises ValueError, without quoting it, for what cannot be one."""

    def __init__(self, text: str) -> None:
        if not _TOKEN.match(text):
            raise ValueError("not an access token")
        self._text = text

    def __repr__(self) -> str:
        return "AccessToken()"

    async def token(self) -> str:
        """The token."""
        return self._text

    def refused(self) -> bool:
        """There is no other."""
        return False


class ServiceAccount:
    """A service account's key file (`{"type":"serviceaccount","keyId","key","userId"}`): RFC 7523 section 2.1.

    Raises ValueError for another file.
    """

    def __init__(self, file: bytes, issuer: str, base: str, http: HttpClient, clock: Callable[[], float]) -> None:
        document = read_object(file) or {}
        key_id, pem, user = (document.get(name) for name in ("keyId", "key", "userId"))
        if not (isinstance(key_id, str) and isinstance(pem, str) and isinstance(user, str) and key_id and user):
            raise ValueError("the key file is not a JSON object with keyId, key and userId")
        if document.get("type", "serviceaccount") != "serviceaccount":
            raise ValueError("the key file is not one of a service account")
        self._key = SigningKey(pem.encode("utf-8"), "RS256", key_id)
        self._user, self._issuer, self._http, self._clock = user, issuer, http, clock
        self._base, self._headers = base.rstrip("/"), instance_header(issuer, base)
        self._held, self._until = "", 0.0

    def __repr__(self) -> str:
        return "ServiceAccount()"

    async def token(self) -> str | ApiFailure:
        """The token held, or a new one half a minute before that ends."""
        now = self._clock()
        if self._held and now < self._until:
            return self._held
        issued = int(now) - _BACKDATED_S  # Zitadel allows an assertion one second of future.
        who = {"iss": self._user, "sub": self._user, "aud": self._issuer}
        assertion = self._key.sign({**who, "iat": issued, "exp": issued + _ASSERTION_LIFE_S})
        form = {"grant_type": _GRANT, "scope": _SCOPE, "assertion": assertion}
        try:
            found = await self._http.get(f"{self._base}/.well-known/openid-configuration", self._headers)
            endpoint = (read_object(found.body) or {}).get("token_endpoint")
            path = urlsplit(endpoint).path if isinstance(endpoint, str) else "/oauth/v2/token"
            answer = await self._http.post_form(self._base + path, form, self._headers)
        except Unreachable as failure:
            return ApiFailure("unreachable", str(failure))
        document = read_object(answer.body) or {}
        token, life = document.get("access_token"), document.get("expires_in", 0)
        if answer.status not in _SUCCESS or not isinstance(token, str) or not _TOKEN.match(token):
            return ApiFailure("unauthenticated", f"no token for the service account: status {answer.status}")
        self._held = token
        self._until = now + (life if isinstance(life, (int, float)) else 0) - _EARLY_S
        return token

    def refused(self) -> bool:
        """Ask for a new one, unless the one refused was new."""
        had, self._held = self._held, ""
        return bool(had)


def instance_header(issuer: str, base: str) -> dict[str, str]:
    """What tells Zitadel which instance is meant when it is asked at another address than its public one."""
    public = urlsplit(issuer).netloc
    return {} if urlsplit(base).netloc == public else {"x-zitadel-instance-host": public}
