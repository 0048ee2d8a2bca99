"""What an issuer publishes: its endpoints (OpenID Connect Discovery 1.0) and its keys (RFC 7517), cached.

Law: a slow, failing or garbled issuer never takes away keys that are still good, and never keeps them good for ever. A
set is fresh for as long as its Cache-Control says. A stale one is used on while it is replaced in the background, for a
minute, or for as long as the issuer is known to be failing; an hour after its freshness ended it is gone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.config import Issuer
from gateway.core.ports.http import HttpAnswer, HttpClient, Unreachable
from gateway.core.reasons import Refusal
from gateway.identity.jose.jws import PublishedKey, published_keys
from gateway.identity.jose.single_flight import SingleFlight
from gateway.identity.jose.strict_json import read_object

_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "end_session_endpoint", "userinfo_endpoint")
_DISCOVERY = "/.well-known/openid-configuration"
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,10})", re.IGNORECASE)
_NO_CACHE = re.compile(r"(?:^|[,\s])no-(?:store|cache)\b", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s/?#@\\]+(?:/[^\s#\\]*)?\Z")
_DEFAULT_FRESH_S, _MIN_FRESH_S, _MAX_FRESH_S = 300.0, 30.0, 3_600.0
_SUCCESS = 200

GRACE_S = 60.0  # a stale set is used this long while its successor is fetched
KEEP_S = 3_600.0  # a stale set is used this long while the issuer fails
ASKED_LATELY = "the issuer was asked for its keys a moment ago"
COOLDOWN_S = 30.0  # between two refetches for the sake of an unknown kid
RETRY_S = 5.0  # after a failure


@dataclass(frozen=True, slots=True)
class Published:
    """One good answer of an issuer. `generation` changes whenever the keys do; times are seconds since the epoch.

    `endpoints`: the usable ones of authorization_endpoint, token_endpoint, end_session_endpoint, userinfo_endpoint.
    `names_itself`: an authorization response carries `iss` (RFC 9207).
    """

    keys: tuple[PublishedKey, ...]
    introspection_endpoint: str | None
    generation: int
    fresh_until: float
    endpoints: Mapping[str, str] = field(default_factory=dict)
    names_itself: bool = False

    def select(self, kid: str | None, algorithm: str) -> tuple[PublishedKey, ...] | Refusal:
        """The keys a token with this header may be signed with.

        Without a kid exactly one key must fit. Refusal `token_key_unknown` or `token_algorithm_refused`.
        """
        named = self.keys if kid is None else tuple(key for key in self.keys if key.kid == kid)
        fitting = tuple(key for key in named if algorithm in key.algorithms)
        if not named or (kid is None and len(fitting) != 1):
            return Refusal("token_key_unknown")
        return fitting or Refusal("token_algorithm_refused", "the key is for another algorithm")


class IssuerDirectory:
    """The endpoints and keys of one configured issuer. Lives on one event loop."""

    def __init__(
        self,
        config: Issuer,
        http: HttpClient,
        clock: Callable[[], float],
        *,
        timeout_s: float = 5.0,
        discovery_url: str | None = None,
    ) -> None:
        self._config = config
        self._discovery = discovery_url or config.issuer.rstrip("/") + _DISCOVERY
        self._http = http
        self._clock = clock
        self._timeout_s = timeout_s
        self._held: Published | None = None
        self._flight: SingleFlight[str, None] = SingleFlight()
        self._loads = 0
        self._trouble = ""
        self._retry_at = 0.0
        self._cooldown_until = 0.0

    def usable(self, now: float) -> Published | None:
        """What may be used without waiting; None when the issuer must be asked first (`published`)."""
        held = self._held
        if held is None or now < held.fresh_until:
            return held
        patience = KEEP_S if self._trouble else GRACE_S
        if now >= held.fresh_until + patience:
            return None
        if now >= self._retry_at:
            self._flight.start("refresh", self._refresh)
        return held

    async def published(self) -> Published | Refusal:
        """What the issuer publishes. Refusal `issuer_unavailable` when that is not known, or not known any more."""
        found = self.usable(self._clock())
        if found is not None:
            return found
        if self._clock() >= self._retry_at or self._flight.busy("refresh"):
            await self._flight.ask("refresh", self._refresh)
        held = self._held
        if held is not None and self._clock() < held.fresh_until + KEEP_S:
            return held
        return Refusal("issuer_unavailable", self._trouble)

    async def keys_for(self, kid: str | None, algorithm: str) -> tuple[PublishedKey, ...] | Refusal:
        """The keys a token with this header may be signed with; an unknown kid is worth one refetch in a while.

        Refusal `token_key_unknown`, with the detail `ASKED_LATELY` when it was not worth one yet.
        """
        loads = self._loads
        published = await self.published()
        if isinstance(published, Refusal):
            return published
        found = published.select(kid, algorithm)
        if not isinstance(found, Refusal) or kid is None or found.reason != "token_key_unknown":
            return found
        now = self._clock()
        if self._loads == loads and (now >= self._cooldown_until or self._flight.busy("refresh")):
            self._cooldown_until = max(self._cooldown_until, now + COOLDOWN_S)
            await self._flight.ask("refresh", self._refresh)
            found = self._held.select(kid, algorithm) if self._held is not None else found
        elif self._loads == loads:
            return Refusal("token_key_unknown", ASKED_LATELY)
        if isinstance(found, Refusal) and self._trouble:
            return Refusal("issuer_unavailable", self._trouble)
        return found

    async def close(self) -> None:
        """Let what runs come to its end; the HTTP client is the caller's to close."""
        await self._flight.close()

    async def _refresh(self) -> None:
        """Ask once. Success replaces what is held, failure leaves it."""
        asked_at = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                outcome = await self._fetch(asked_at)
        except TimeoutError:
            outcome = "no answer in time"
        except Unreachable as failure:
            outcome = f"unreachable: {failure}"
        self._loads += 1
        if isinstance(outcome, Published):
            self._held, self._trouble, self._retry_at = outcome, "", 0.0
        else:
            self._trouble, self._retry_at = outcome, self._clock() + RETRY_S

    async def _fetch(self, asked_at: float) -> Published | str:
        """What the issuer publishes now, or what is wrong with it."""
        issuer = self._config.issuer
        answer = await self._http.get(self._discovery)
        document = read_object(answer.body) if answer.status == _SUCCESS else None
        if document is None:
            return f"discovery: status {answer.status} without a usable document"
        if document.get("issuer") != issuer:
            return "discovery: it names another issuer"
        jwks_uri = self._endpoint(document.get("jwks_uri"))
        if jwks_uri is None:
            return "discovery: no usable jwks_uri"
        answer = await self._http.get(jwks_uri)
        published = read_object(answer.body, members=20_000) if answer.status == _SUCCESS else None
        if published is None:
            return f"keys: status {answer.status} without a usable document"
        keys = published_keys(published, self._config.algorithms)
        if not keys:
            return "keys: none that may be used"
        held = self._held
        generation = 0 if held is None else held.generation + (keys != held.keys)
        endpoint = self._endpoint(document.get("introspection_endpoint"))
        named = {name: url for name in _ENDPOINTS if (url := self._endpoint(document.get(name))) is not None}
        names_itself = document.get("authorization_response_iss_parameter_supported") is True
        return Published(keys, endpoint, generation, asked_at + _fresh_s(answer), named, names_itself)

    def _endpoint(self, url: object) -> str | None:
        """A URL from discovery, unless it is malformed or gives up the issuer's TLS."""
        if not isinstance(url, str) or not _URL.match(url):
            return None
        return url if url.startswith("https://") or self._config.issuer.startswith("http://") else None


def _fresh_s(answer: HttpAnswer) -> float:
    """How long an answer may be used, in seconds, within our own bounds (RFC 9111 section 5.2.2)."""
    control = answer.headers.get("cache-control", "")
    if _NO_CACHE.search(control):
        return _MIN_FRESH_S
    match = _MAX_AGE.search(control)
    return min(max(float(match[1]), _MIN_FRESH_S), _MAX_FRESH_S) if match else _DEFAULT_FRESH_S
