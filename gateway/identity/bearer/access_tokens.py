"""Access tokens -> Identity: JWTs verified here (RFC 8725, RFC 9068), all others by asking their issuer.

Law: a token is looked at only as far as it has been believed so far: size, form, header, issuer, algorithm, key,
signature, kind, claims. A verified JWT is remembered by its SHA-256 for as long as its issuer's keys stay the same and
it has not expired; what the issuer says about it is asked for separately, and again.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from gateway.config import Issuer
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Identity
from gateway.identity.jose.jws import b64url_decode
from gateway.identity.jose.strict_json import read_object
from gateway.identity.oidc.claims import check_claims, check_kind, identity_of, present
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.oidc.introspection import Active, Introspector

_CREDENTIAL = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?: +(.*))?\Z", re.DOTALL)
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")
_SCHEMES = frozenset({"bearer", "dpop"})
_LIMIT_BYTES = 16_384
_JWS_DOTS, _JWE_DOTS = 2, 4
_MAX_KID = 256
_UNTRUSTED_KEYS = frozenset({"jku", "jwk", "x5u", "x5c"})
_NO_EXPIRY_S = 3_600.0


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """A configured issuer with what is needed to verify its tokens; no introspector means it cannot be asked."""

    config: Issuer
    directory: IssuerDirectory
    introspector: Introspector | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """An access token and the scheme it came under, "bearer" or "dpop"."""

    scheme: str
    token: str = field(repr=False)


@dataclass(slots=True)
class _Verified:
    """A JWT whose signature and claims are good. `confirmed` is the identity made with the issuer's latest word."""

    issuer: TrustedIssuer
    generation: int
    claims: Mapping[str, Any]
    identity: Identity
    confirmed: tuple[Active, Identity] | None = None


class TokenReader:
    """The `IdentityReader` for `Authorization: Bearer` (RFC 6750 section 2.1) and `DPoP` (RFC 9449 section 7.1).

    Whether the key that a token is bound to was proven is the binder's to say.
    """

    def __init__(self, issuers: Sequence[TrustedIssuer], clock: Callable[[], float], *, size: int = 10_000) -> None:
        self._issuers = {issuer.config.issuer: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ValueError("an issuer is configured twice")
        self._clock = clock
        self._size = size
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    async def read(self, facts: RequestFacts, route: Route) -> Identity | None | Refusal:
        """The token's identity; None without one, also for an Authorization of another scheme or the service's own."""
        credential = None if route.own_authorization else read_credential(facts)
        if not isinstance(credential, Credential):
            return credential
        token = credential.token
        digest = sha256(token.encode("ascii")).digest()
        dots = token.count(".")
        if dots == _JWE_DOTS and token.startswith("eyJ"):
            return Refusal("token_kind_wrong", "an encrypted JWT")
        if dots != _JWS_DOTS:
            return await self._opaque(token, digest, route)
        verified = self._remembered(digest) or await self._verify(token, digest, route)
        if isinstance(verified, Refusal):
            return verified
        if not _accepts(route, verified.issuer):
            return Refusal("token_issuer_unknown", "an issuer that this service does not accept")
        if route.introspect_cache_s is None:
            return verified.identity
        return await self._confirm(verified, token, digest, route.introspect_cache_s)

    async def again(self, identity: Identity, facts: RequestFacts, route: Route) -> Identity | None | Refusal:
        """The token's identity as it is now; None for one that came by cookie."""
        return None if identity.kind == "session" else await self.read(facts, route)

    async def close(self) -> None:
        """Let what runs come to its end; the HTTP clients are the caller's to close."""
        self._verified.clear()
        for issuer in self._issuers.values():
            await issuer.directory.close()
            if issuer.introspector is not None:
                await issuer.introspector.close()

    def _remembered(self, digest: bytes) -> _Verified | None:
        """What was verified before, as long as it would verify again."""
        verified = self._verified.get(digest)
        if verified is None:
            return None
        now = self._clock()
        published = verified.issuer.directory.usable(now)
        if (
            published is None
            or published.generation != verified.generation
            or verified.identity.expires_at <= now - verified.issuer.config.leeway_s
        ):
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return verified

    async def _verify(self, token: str, digest: bytes, route: Route) -> _Verified | Refusal:
        head, body, tail = token.split(".")
        raw_header, raw_claims, signature = b64url_decode(head), b64url_decode(body), b64url_decode(tail)
        header = read_object(raw_header, depth=4, members=64) if raw_header is not None else None
        payload = read_object(raw_claims) if raw_claims is not None else None
        if header is None or payload is None or signature is None:
            return Refusal("token_malformed")
        if header.keys() & _UNTRUSTED_KEYS or "crit" in header:
            return Refusal("token_algorithm_refused", "the header brings its own key or demands an extension")
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or not (kid is None or (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID)):
            return Refusal("token_malformed", "alg or kid")
        name = payload.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None or not _accepts(route, issuer):
            return Refusal("token_issuer_unknown")
        if algorithm not in issuer.config.algorithms:
            return Refusal("token_algorithm_refused")
        keys = await issuer.directory.keys_for(kid, algorithm)
        if isinstance(keys, Refusal):
            return keys
        message = token[: len(head) + 1 + len(body)].encode("ascii")
        if not any(key.verifies(algorithm, message, signature) for key in keys):
            return Refusal("token_signature_invalid")

        now = self._clock()
        claims = present(payload)
        refusal = check_kind(header.get("typ"), claims, issuer.config) or check_claims(claims, issuer.config, now)
        if refusal is not None:
            return refusal
        expires_at, hint = float(claims["exp"]), _hint(digest)
        identity = identity_of(claims, issuer.config, kind="jwt", expires_at=expires_at, hint=hint)
        if isinstance(identity, Refusal):
            return identity
        published = issuer.directory.usable(now)
        verified = _Verified(issuer, -1 if published is None else published.generation, claims, identity)
        self._verified[digest] = verified
        while len(self._verified) > self._size:
            self._verified.popitem(last=False)
        return verified

    async def _confirm(self, verified: _Verified, token: str, digest: bytes, max_age_s: float) -> Identity | Refusal:
        """The identity, once the issuer has said that the token is still active; the answer fills what is missing."""
        issuer = verified.issuer
        if issuer.introspector is None:
            return Refusal("issuer_unavailable", "this service wants introspection, and none is configured")
        answer = await issuer.introspector.ask(token, digest, max_age_s)
        if isinstance(answer, Refusal):
            return answer
        if verified.confirmed is not None and verified.confirmed[0] is answer:
            return verified.confirmed[1]
        answered, ours = answer.claims, verified.claims
        if any(name in ours and answered.get(name, ours[name]) != ours[name] for name in ("sub", "client_id")):
            return Refusal("token_malformed", "the issuer's answer is about another subject or client")
        merged = {**answered, **ours}
        if "email" in ours:
            # Whether an address was verified is said of that address alone.
            merged["email_verified"] = ours.get("email_verified")
        expires_at = min(verified.identity.expires_at, float(answered.get("exp", verified.identity.expires_at)))
        identity = identity_of(merged, issuer.config, kind="jwt", expires_at=expires_at, hint=_hint(digest))
        if isinstance(identity, Identity):
            verified.confirmed = (answer, identity)
        return identity

    async def _opaque(self, token: str, digest: bytes, route: Route) -> Identity | Refusal:
        """The identity of a token that only its issuer can read. It is shown to one issuer, never to several."""
        takers = [issuer for issuer in self._issuers.values() if issuer.config.opaque and _accepts(route, issuer)]
        if not takers:
            return Refusal("token_malformed", "not a JWT, and no issuer here takes other tokens")
        issuer = takers[0]
        if len(takers) > 1 or issuer.introspector is None or issuer.config.introspection is None:
            return Refusal("issuer_unavailable", "not exactly one issuer that can be asked about such tokens")
        max_age_s = issuer.config.introspection.cache_s
        if route.introspect_cache_s is not None:
            max_age_s = min(max_age_s, route.introspect_cache_s)
        answer = await issuer.introspector.ask(token, digest, max_age_s)
        if isinstance(answer, Refusal):
            return answer
        claims = answer.claims
        if "aud" not in claims:
            return Refusal("token_audience_wrong", "the issuer names no audience")
        if "token_type" not in claims:
            # Some issuers call a refresh token active too; only access tokens have a type.
            return Refusal("token_kind_wrong", "the issuer names no token type")
        expires_at = float(claims.get("exp", answer.asked_at + _NO_EXPIRY_S))
        return identity_of(claims, issuer.config, kind="opaque", expires_at=expires_at, hint=_hint(digest))


def read_credential(facts: RequestFacts) -> Credential | None | Refusal:
    """The one access token of a request; None without an Authorization header or with one of another scheme."""
    values = facts.header_values("authorization")
    if not values:
        return None
    if len(values) > 1:
        return Refusal("token_ambiguous")
    match = _CREDENTIAL.match(values[0])
    if match is None:
        return Refusal("token_malformed", "authorization")
    scheme, token = match[1].lower(), match[2] or ""
    if scheme not in _SCHEMES:
        return None
    if len(token) > _LIMIT_BYTES:
        return Refusal("token_malformed", "too large")
    return Credential(scheme, token) if _TOKEN.match(token) else Refusal("token_malformed", "authorization")


def _accepts(route: Route, issuer: TrustedIssuer) -> bool:
    return not route.issuers or issuer.config.issuer in route.issuers


def _hint(digest: bytes) -> str:
    """A session hint for a token that names neither session nor itself."""
    return f"token:{digest[:16].hex()}"
