"""ID tokens, checked to the letter (OpenID Connect Core 1.0 sections 3.1.3.7 and 12.2; RFC 8725).

Zitadel says `typ: JWT` in every token, so an id token is known by what it must have (our nonce, our client) and by what
it must not have (`events`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.config import Issuer
from gateway.core.reasons import Refusal
from gateway.identity.jose.jws import b64url_decode, b64url_encode
from gateway.identity.jose.strict_json import read_object
from gateway.identity.oidc.claims import check_claims, present
from gateway.identity.oidc.discovery import IssuerDirectory

_LIMIT_BYTES = 32_768
_DOTS = 2
_MAX_KID = 256
_UNTRUSTED_KEYS = frozenset({"jku", "jwk", "x5u", "x5c", "crit"})
_REQUIRED = ("iss", "sub", "aud", "exp", "iat")
_ISSUED_WITHIN_S = 300.0  # a token fresh from the token endpoint is not older
_HASHES = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


@dataclass(frozen=True, slots=True)
class Expected:
    """What an id token must say. `max_age_s` None: no `auth_time` was asked for. `empty_amr` is the issuer's setting.

    `nonce` and `access_token` belong to this sign-in; `subject` and `auth_time` to the sign-in that a refresh renews.
    """

    client_id: str
    nonce: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    max_age_s: float | None = None
    empty_amr: str = "refuse"
    subject: str | None = None
    auth_time: float | None = None


async def verified_claims(token: str, config: Issuer, directory: IssuerDirectory) -> tuple[str, str, Any] | Refusal:
    """(algorithm, lower-case typ, claims) of a JWS whose signature is its issuer's; no claim is judged yet.

    Refusals: `token_malformed`, `token_algorithm_refused`, `token_key_unknown`, `token_signature_invalid`,
    `issuer_unavailable`.
    """
    if len(token) > _LIMIT_BYTES or token.count(".") != _DOTS or not token.isascii():
        return Refusal("token_malformed")
    head, body, tail = token.split(".")
    raw_header, raw_claims, signature = b64url_decode(head), b64url_decode(body), b64url_decode(tail)
    header = read_object(raw_header, depth=4, members=64) if raw_header is not None else None
    claims = read_object(raw_claims) if raw_claims is not None else None
    if header is None or claims is None or signature is None:
        return Refusal("token_malformed")
    if header.keys() & _UNTRUSTED_KEYS:
        return Refusal("token_algorithm_refused", "the header brings its own key or demands an extension")
    algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or not isinstance(typ, str):
        return Refusal("token_malformed", "alg or typ")
    if not (kid is None or (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID)):
        return Refusal("token_malformed", "kid")
    if algorithm not in config.algorithms:
        return Refusal("token_algorithm_refused")
    keys = await directory.keys_for(kid, algorithm)
    if isinstance(keys, Refusal):
        return keys
    message = token[: len(head) + 1 + len(body)].encode("ascii")
    if not any(key.verifies(algorithm, message, signature) for key in keys):
        return Refusal("token_signature_invalid")
    return algorithm, typ.lower(), present(claims)


async def check_id_token(
    token: str, config: Issuer, directory: IssuerDirectory, expected: Expected, now: float
) -> Mapping[str, Any] | Refusal:
    """The claims of an id token that is good here and now, or a Refusal that says which check failed.

    Refusals: those of `verified_claims`, `token_*` for its claims, `auth_stale`, `amr_missing`.
    """
    verified = await verified_claims(token, config, directory)
    if isinstance(verified, Refusal):
        return verified
    algorithm, typ, claims = verified
    if typ not in {"jwt", "id_token+jwt"} or "events" in claims:
        return Refusal("token_kind_wrong", "not an id token")
    missing = [name for name in _REQUIRED if name not in claims]
    if missing:
        return Refusal("token_malformed", f"no {missing[0]}")
    ours = config.model_copy(update={"audiences": (expected.client_id,), "client_ids": ()})
    if refusal := check_claims(claims, ours, now):
        return refusal
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else expected.client_id) != expected.client_id:
        return Refusal("token_client_wrong", "azp")
    if claims["iat"] < now - _ISSUED_WITHIN_S - config.leeway_s:
        return Refusal("token_expired", "iat")
    return _about_us(claims, algorithm, expected) or _about_the_person(claims, config, expected, now) or claims


def _about_us(claims: Mapping[str, Any], algorithm: str, expected: Expected) -> Refusal | None:
    """Whether the token belongs to this exchange: nonce, access token, subject."""
    nonce = claims.get("nonce")
    if expected.nonce is not None and not (isinstance(nonce, str) and _same(nonce, expected.nonce)):
        return Refusal("token_malformed", "nonce")
    if "at_hash" in claims:
        wanted = _at_hash(expected.access_token, algorithm)
        if not isinstance(claims["at_hash"], str) or wanted is None or not _same(claims["at_hash"], wanted):
            return Refusal("token_malformed", "at_hash")
    if expected.subject is not None and claims["sub"] != expected.subject:
        return Refusal("token_malformed", "another subject")
    return None


def _about_the_person(claims: Mapping[str, Any], config: Issuer, expected: Expected, now: float) -> Refusal | None:
    """Whether the sign-in is recent and proven enough. An issuer may ignore `max_age`; here it is enforced."""
    auth_time = claims.get("auth_time")
    if auth_time is not None and auth_time > now + config.leeway_s:
        return Refusal("token_not_yet_valid", "auth_time")
    if expected.max_age_s is not None and (auth_time is None or now - auth_time > expected.max_age_s + config.leeway_s):
        return Refusal("auth_stale", "no auth_time" if auth_time is None else "auth_time")
    # A renewed token tells of the same sign-in; some issuers leave it out there.
    # A newer time is a sign-in at another application of the same issuer (Keycloak), and ends nothing here.
    if expected.auth_time is not None and auth_time is not None and auth_time < expected.auth_time:
        return Refusal("token_malformed", "an older auth_time")
    if expected.subject is None and not claims.get("amr"):
        # Without both, the issuer vouches for nothing: a session that was never authenticated looks like this.
        if auth_time is None and config.assurance.missing_auth_time != "accept":
            return Refusal("amr_missing", "neither amr nor auth_time")
        if expected.empty_amr != "accept":
            return Refusal("amr_missing", "amr")
    return None


def _at_hash(access_token: str | None, algorithm: str) -> str | None:
    """The left half of the access token's hash (section 3.1.3.6); EdDSA here is Ed25519, which hashes with SHA-512."""
    if access_token is None:
        return None
    made = _HASHES["512" if algorithm == "EdDSA" else algorithm[-3:]](access_token.encode("utf-8")).digest()
    return b64url_encode(made[: len(made) // 2])


def _same(said: str, wanted: str) -> bool:
    return hmac.compare_digest(said.encode("utf-8", "replace"), wanted.encode("utf-8"))
