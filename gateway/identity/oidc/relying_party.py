"""The gateway as a client of one issuer: authorization requests, codes, refresh, sign-out (OpenID Connect Core 1.0).

What an issuer hands out is checked before anybody sees it. A secret is in no repr, no URL and no error.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from gateway.config import Issuer, resolve_secret
from gateway.config import Login as LoginConfig
from gateway.core.ports.http import HttpClient, Unreachable
from gateway.core.reasons import Refusal
from gateway.identity.jose.jws import b64url_encode
from gateway.identity.jose.strict_json import read_object
from gateway.identity.oidc.claims import Claims
from gateway.identity.oidc.client_auth import BasicCredential, ClientCredential, KeyCredential
from gateway.identity.oidc.discovery import IssuerDirectory, Published
from gateway.identity.oidc.id_token import Expected, check_id_token

_SCOPES = ("openid", "profile", "email", "offline_access")
# Zitadel: roles, the department and the organisation come when they are asked for.
_ZITADEL_SCOPES = (
    "urn:zitadel:iam:org:projects:roles",
    "urn:zitadel:iam:user:metadata",
    "urn:zitadel:iam:user:resourceowner",
)
_SUCCESS, _BAD_REQUEST, _SERVER_FAILS = 200, 400, 500
# Zitadel: a refresh token that is used up or revoked is invalid_grant or invalid_request.
_OVER = frozenset({"invalid_grant", "invalid_request"})
_MAX_TOKEN = 32_768
# What only a signed token may say.
_ABOUT_SIGN_IN = frozenset(
    {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "nonce", "azp", "client_id", "sid", "amr", "acr", "auth_time"}
    | {"at_hash", "c_hash", "scope", "cnf"}
)
_MAX_LIFE_S = 86_400.0 * 366
_MAX_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token endpoint handed out. `expires_at` is the access token's end, None when the issuer does not say."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    id_token: str | None = field(repr=False)
    expires_at: float | None


class PublicClient:
    """A client without a secret: it only names itself (RFC 6749 section 3.2.1)."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id

    def authenticate(self, issuer: str, now: float) -> tuple[Mapping[str, str], Mapping[str, str]]:  # noqa: ARG002  (port)
        """No header; the client id as a form field."""
        return {}, {"client_id": self._client_id}


def login_credential(login: LoginConfig) -> ClientCredential:
    """How the configured client authenticates. Raises ConfigError or ValueError for a secret that will not do."""
    if login.secret is not None:
        return BasicCredential(login.client_id, resolve_secret(login.secret).reveal().encode())
    if login.key is not None:
        return KeyCredential(login.client_id, resolve_secret(login.key).reveal().encode())
    return PublicClient(login.client_id)


class RelyingParty:
    """One issuer at which people sign in. Raises ValueError for an issuer without `login`."""

    def __init__(
        self,
        config: Issuer,
        directory: IssuerDirectory,
        http: HttpClient,
        credential: ClientCredential,
        redirect_uri: str,
        clock: Callable[[], float],
        *,
        timeout_s: float = 8.0,
    ) -> None:
        if config.login is None:
            raise ValueError("nobody signs in at this issuer")
        self.config, self.login = config, config.login
        self.slug, self.redirect_uri = config.slug, redirect_uri
        self._directory = directory
        self._http = http
        self._credential = credential
        self._clock = clock
        self._timeout_s = timeout_s

    @property
    def scopes(self) -> tuple[str, ...]:
        """What is asked for."""
        if self.login.scopes is not None:
            return self.login.scopes
        return _SCOPES + (_ZITADEL_SCOPES if self.config.profile == "zitadel" else ())

    async def published(self) -> Published | Refusal:
        """What the issuer publishes. Refusal `issuer_unavailable`."""
        return await self._directory.published()

    async def authorization_url(
        self, *, state: str, nonce: str, verifier: str, max_age_s: float | None, prompt: str | None
    ) -> str | Refusal:
        """Where the browser goes to sign in (section 3.1.2.1; RFC 7636 with S256). Refusal `issuer_unavailable`."""
        endpoint = await self._endpoint("authorization_endpoint")
        if isinstance(endpoint, Refusal):
            return endpoint
        query = {
            "response_type": "code",
            "client_id": self.login.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(self.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": b64url_encode(hashlib.sha256(verifier.encode("ascii")).digest()),
            "code_challenge_method": "S256",
        }
        if max_age_s is not None:
            query["max_age"] = str(int(max_age_s))
        if prompt is not None:
            query["prompt"] = prompt
        return _with_query(endpoint, query)

    async def redeem(
        self, code: str, *, nonce: str, verifier: str, max_age_s: float | None
    ) -> tuple[Tokens, Claims] | Refusal:
        """The tokens of a code and the checked claims of the id token.

        Refusals: `login_failed`, `auth_stale`, `amr_missing`, `issuer_unavailable`.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
        }
        tokens = await self._ask(form)
        if isinstance(tokens, Refusal):
            return Refusal("login_failed", tokens.detail) if tokens.reason == "session_revoked" else tokens
        if tokens.id_token is None:
            return Refusal("login_failed", "no id token")
        expected = Expected(
            client_id=self.login.client_id,
            nonce=nonce,
            access_token=tokens.access_token,
            max_age_s=max_age_s,
            empty_amr=self.config.assurance.empty_amr or self.login.empty_amr,
        )
        claims = await self._checked(tokens.id_token, expected)
        whole = claims if isinstance(claims, Refusal) else await self._with_userinfo(tokens, claims)
        return whole if isinstance(whole, Refusal) else (tokens, whole)

    async def refresh(self, refresh_token: str) -> Tokens | Refusal:
        """The next tokens (section 12); nothing of their id token is checked yet, so that they can be kept first.

        Refusal `session_revoked` when the issuer says that it is over, `issuer_unavailable` when it cannot be asked,
        `login_failed` for an answer that must not be believed.
        """
        return await self._ask({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def renewed_claims(self, tokens: Tokens, *, subject: str, auth_time: float | None) -> Claims | Refusal | None:
        """The checked claims of a refresh's id token, which must be about the same sign-in; None without one.

        Refusals: `login_failed`, `issuer_unavailable`.
        """
        if tokens.id_token is None:
            return None
        expected = Expected(
            client_id=self.login.client_id, access_token=tokens.access_token, subject=subject, auth_time=auth_time
        )
        claims = await self._checked(tokens.id_token, expected)
        return claims if isinstance(claims, Refusal) else await self._with_userinfo(tokens, claims)

    async def _with_userinfo(self, tokens: Tokens, claims: Claims) -> Claims | Refusal:
        """The claims and, where the id token does not name the person, what UserInfo adds to them (section 5.3).

        What the id token says stays. An issuer that does not answer leaves the person without a name, no more; one that
        answers about somebody else is not believed (section 5.3.2).
        """
        published = await self.published()
        endpoint = None if isinstance(published, Refusal) else published.endpoints.get("userinfo_endpoint")
        if endpoint is None or "email" in claims or "name" in claims:
            return claims
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._http.get(endpoint, {"authorization": f"Bearer {tokens.access_token}"})
        except (TimeoutError, Unreachable):
            return claims
        document = read_object(answer.body) if answer.status == _SUCCESS else None
        if document is None:
            return claims
        if document.get("sub") != claims["sub"]:
            return Refusal("login_failed", "userinfo: another subject")
        return {**{name: value for name, value in document.items() if name not in _ABOUT_SIGN_IN}, **claims}

    async def sign_out_url(self, id_token: str | None, back_to: str, state: str) -> str | None:
        """Where the browser goes to sign out at the issuer too (RP-Initiated Logout 1.0); None when that is nowhere."""
        endpoint = await self._endpoint("end_session_endpoint")
        if isinstance(endpoint, Refusal):
            return None
        query = {"client_id": self.login.client_id, "post_logout_redirect_uri": back_to, "state": state}
        return _with_query(endpoint, query if id_token is None else {"id_token_hint": id_token, **query})

    async def _endpoint(self, name: str) -> str | Refusal:
        found = await self.published()
        if isinstance(found, Refusal):
            return found
        return found.endpoints.get(name) or Refusal("issuer_unavailable", f"discovery: no usable {name}")

    async def _checked(self, id_token: str, expected: Expected) -> Claims | Refusal:
        found = await check_id_token(id_token, self.config, self._directory, expected, self._clock())
        if not isinstance(found, Refusal) or found.reason in {"issuer_unavailable", "auth_stale", "amr_missing"}:
            return found
        return Refusal("login_failed", f"id token: {found.reason} {found.detail}".rstrip())

    async def _ask(self, form: Mapping[str, str]) -> Tokens | Refusal:
        """Tokens from the token endpoint; `session_revoked` when it says that what was shown is over."""
        endpoint = await self._endpoint("token_endpoint")
        if isinstance(endpoint, Refusal):
            return endpoint
        asked_at = self._clock()
        headers, fields = self._credential.authenticate(self.config.issuer, asked_at)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._http.post_form(endpoint, {**form, **fields}, headers)
        except TimeoutError:
            return Refusal("issuer_unavailable", "token endpoint: no answer in time")
        except Unreachable as failure:
            return Refusal("issuer_unavailable", f"token endpoint: {failure}")
        document = read_object(answer.body) or {}
        if answer.status == _BAD_REQUEST and document.get("error") in _OVER:
            return Refusal("session_revoked", f"token endpoint: {document['error']}")
        if answer.status != _SUCCESS:
            return Refusal("issuer_unavailable", f"token endpoint: status {answer.status}")
        return _tokens(document, asked_at)


def _tokens(document: Mapping[str, Any], asked_at: float) -> Tokens | Refusal:
    """A token answer (RFC 6749 section 5.1), every member of the type it must have."""
    kind, life = document.get("token_type"), document.get("expires_in")
    access, refresh, identity = (document.get(name) for name in ("access_token", "refresh_token", "id_token"))
    if not isinstance(kind, str) or kind.lower() != "bearer" or not _is_token(access):
        return Refusal("login_failed", "token endpoint: no bearer token")
    if any(value is not None and not _is_token(value) for value in (refresh, identity)):
        return Refusal("login_failed", "token endpoint: a malformed token")
    if isinstance(life, str) and life.isascii() and life.isdecimal() and len(life) <= _MAX_DIGITS:
        life = int(life)  # some issuers write the number as text
    if life is not None and (isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life < _MAX_LIFE_S):
        return Refusal("login_failed", "token endpoint: expires_in")
    return Tokens(str(access), refresh, identity, None if life is None else asked_at + life)


def _is_token(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TOKEN and value.isascii() and value.isprintable()


def _with_query(endpoint: str, query: Mapping[str, str]) -> str:
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
