"""Asking the issuer whether a token is active (RFC 7662): one question for many callers, answers kept for seconds.

Law: no clear "active" is a no. Whatever goes wrong on the way is `issuer_unavailable`, never access.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config import Issuer
from gateway.core.ports.http import HttpAnswer, HttpClient, Unreachable
from gateway.core.reasons import Refusal
from gateway.identity.jose.single_flight import SingleFlight
from gateway.identity.jose.strict_json import read_object
from gateway.identity.oidc.claims import check_claims, present
from gateway.identity.oidc.client_auth import ClientCredential
from gateway.identity.oidc.discovery import IssuerDirectory

_SUCCESS = 200
_REFUSED_US = (401, 403)
_NEGATIVE_S = 2.0  # an inactive token is asked about again after this


@dataclass(frozen=True, slots=True)
class Active:
    """The issuer's word that a token is active. `claims` are checked; `asked_at` is when the question was sent."""

    claims: Mapping[str, Any]
    asked_at: float


@dataclass(frozen=True, slots=True)
class _Inactive:
    """A lasting no, which may be remembered."""

    refusal: Refusal
    asked_at: float


class Introspector:
    """Introspection at one issuer. Answers are kept by the token's SHA-256, never by the token itself."""

    def __init__(
        self,
        config: Issuer,
        directory: IssuerDirectory,
        http: HttpClient,
        credential: ClientCredential,
        clock: Callable[[], float],
        *,
        timeout_s: float = 5.0,
        size: int = 10_000,
    ) -> None:
        if config.introspection is None:
            raise ValueError("no introspection is configured for this issuer")
        self._config = config
        self._cache_s = config.introspection.cache_s
        self._directory = directory
        self._http = http
        self._credential = credential
        self._clock = clock
        self._timeout_s = timeout_s
        self._size = size
        self._answers: OrderedDict[bytes, Active | _Inactive] = OrderedDict()
        self._flight: SingleFlight[bytes, Active | Refusal] = SingleFlight()

    def held(self, digest: bytes, max_age_s: float) -> Active | Refusal | None:
        """What is known about a token without asking: None when that is nothing, or too old."""
        answer = self._answers.get(digest)
        if answer is None:
            return None
        now = self._clock()
        limit = min(self._cache_s, max_age_s)
        if isinstance(answer, _Inactive):
            return answer.refusal if now - answer.asked_at < min(limit, _NEGATIVE_S) else None
        if now - answer.asked_at >= limit:
            return None
        expired = "exp" in answer.claims and answer.claims["exp"] <= now - self._config.leeway_s
        return Refusal("token_expired") if expired else answer

    async def ask(self, token: str, digest: bytes, max_age_s: float) -> Active | Refusal:
        """The issuer's word about `token`, at most `max_age_s` and the configured `cache_s` old.

        `digest` is the token's SHA-256. Refusal `token_inactive`, `issuer_unavailable`, or one of `check_claims`.
        """
        held = self.held(digest, max_age_s)
        if held is not None:
            return held
        answer = await self._flight.ask(digest, lambda: self._ask(token, digest))
        return Refusal("issuer_unavailable", "too many questions at once, or closing") if answer is None else answer

    async def close(self) -> None:
        """Let what runs come to its end; the HTTP client is the caller's to close."""
        await self._flight.close()

    async def _ask(self, token: str, digest: bytes) -> Active | Refusal:
        asked_at = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                outcome = await self._exchange(token, asked_at)
        except TimeoutError:
            return Refusal("issuer_unavailable", "introspection: no answer in time")
        except Unreachable as failure:
            return Refusal("issuer_unavailable", f"introspection: {failure}")
        if isinstance(outcome, Refusal):
            return outcome
        self._answers[digest] = outcome
        self._answers.move_to_end(digest)
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)
        return outcome.refusal if isinstance(outcome, _Inactive) else outcome

    async def _exchange(self, token: str, asked_at: float) -> Active | _Inactive | Refusal:
        published = await self._directory.published()
        if isinstance(published, Refusal):
            return published
        if published.introspection_endpoint is None:
            return Refusal("issuer_unavailable", "introspection: the issuer publishes no endpoint")
        headers, fields = self._credential.authenticate(self._config.issuer, asked_at)
        form = {"token": token, "token_type_hint": "access_token", **fields}
        answer = await self._http.post_form(published.introspection_endpoint, form, headers)
        return self._judge(answer, asked_at)

    def _judge(self, answer: HttpAnswer, asked_at: float) -> Active | _Inactive | Refusal:
        if answer.status in _REFUSED_US:
            return Refusal("issuer_unavailable", "introspection: the issuer refuses the gateway's own credential")
        document = read_object(answer.body) if answer.status == _SUCCESS else None
        active = document.get("active") if document is not None else None
        if document is None or not isinstance(active, bool):
            return Refusal("issuer_unavailable", f"introspection: status {answer.status} without a usable answer")
        if not active:
            return _Inactive(Refusal("token_inactive"), asked_at)
        claims = present(document)
        if "sub" not in claims:
            return Refusal("issuer_unavailable", "introspection: an answer without sub")
        kind, bound_to = str(claims.get("token_type", "bearer")).lower(), claims.get("cnf")
        if kind != "bearer" and not (kind == "dpop" and isinstance(bound_to, dict) and "jkt" in bound_to):
            return _Inactive(
                Refusal("token_kind_wrong", "neither a bearer token nor one that is bound to a key"), asked_at
            )
        refusal = check_claims(claims, self._config, asked_at)
        if refusal is None:
            return Active(claims, asked_at)
        if refusal.reason == "token_malformed":
            return Refusal("issuer_unavailable", f"introspection: a malformed {refusal.detail}")
        return _Inactive(refusal, asked_at)
