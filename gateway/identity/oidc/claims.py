"""Claims -> Identity: every claim's type is checked, then its meaning; both profiles' rules in one place.

Law: a claim that the token's own validity rests on refuses the token when it has the wrong type; one that only
describes a person (name, e-mail, department, roles by path) is skipped then and grants nothing. A member that is null
or "" counts as missing. Used for a JWT's payload and for an introspection answer alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from gateway.config import Issuer
from gateway.core.reasons import Refusal
from gateway.core.subject import Identity, Role
from gateway.identity.jose.jws import b64url_decode
from gateway.identity.oidc.claim_paths import is_name, is_true, text_at, texts_at

Claims = Mapping[str, Any]

_ROLES = "urn:zitadel:iam:org:project:roles"
_ROLES_PREFIX, _ROLES_SUFFIX = "urn:zitadel:iam:org:project:", ":roles"
_METADATA = "urn:zitadel:iam:user:metadata"
_TEXTS = ("iss", "sub", "client_id", "azp", "jti", "sid", "acr", "token_type")
_TIMES = ("exp", "nbf", "iat", "auth_time")
_MAX_TEXT = 1_024
_MAX_TIME = float(1 << 53)
_CNF = ("x5t#S256", "jkt")
_STRICT_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_ZITADEL_TYPES = _STRICT_TYPES | {"jwt"}
_STRICT_REQUIRED = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
_ZITADEL_REQUIRED = ("iss", "exp", "aud", "sub", "iat")
# Zitadel: id token, access token and logout token all say typ "JWT"; these claims are never in an access token.
_OTHER_KINDS = ("nonce", "at_hash", "c_hash", "s_hash", "events", "sub_id")


class _Bad(Exception):
    """A claim has the wrong type; the text is the claim's name."""


def present(claims: Claims) -> dict[str, Any]:
    """The claims without those that are null or empty texts."""
    return {name: value for name, value in claims.items() if value is not None and value != ""}


def check_kind(typ: object, claims: Claims, config: Issuer) -> Refusal | None:
    """Whether a JWT with this header `typ` is an access token at all (RFC 8725 section 3.11, RFC 9068 section 4)."""
    kind = typ.lower() if isinstance(typ, str) else ""
    if config.profile == "strict":
        if kind not in _STRICT_TYPES:
            return Refusal("token_kind_wrong", "typ is not at+jwt")
        required: tuple[str, ...] = _STRICT_REQUIRED
    else:
        if kind not in _ZITADEL_TYPES:
            return Refusal("token_kind_wrong", "typ is not JWT")
        if any(name in claims for name in _OTHER_KINDS):
            return Refusal("token_kind_wrong", "an id token or a logout token")
        if "jti" not in claims or not ("client_id" in claims or "azp" in claims):
            return Refusal("token_kind_wrong", "no jti or client_id")
        required = _ZITADEL_REQUIRED
    missing = [name for name in required if name not in claims]
    return Refusal("token_malformed", f"no {missing[0]}") if missing else None


def check_claims(claims: Claims, config: Issuer, now: float) -> Refusal | None:
    """Whether the claims are well formed and meant for us, now; a claim that is missing is not looked at."""
    for name in _TEXTS:
        if name in claims and not _is_text(claims[name]):
            return Refusal("token_malformed", name)
    for name in _TIMES:
        if name in claims and not _is_time(claims[name]):
            return Refusal("token_malformed", name)
    if claims.get("iss", config.issuer) != config.issuer:
        return Refusal("token_issuer_unknown", "another issuer")
    if "aud" in claims:
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if not all(map(_is_text, audiences)):
            return Refusal("token_malformed", "aud")
        if not any(audience in config.audiences for audience in audiences):
            return Refusal("token_audience_wrong")
    if config.client_ids and _client(claims) not in config.client_ids:
        return Refusal("token_client_wrong")
    if "exp" in claims and claims["exp"] <= now - config.leeway_s:
        return Refusal("token_expired")
    if any(name in claims and claims[name] > now + config.leeway_s for name in ("nbf", "iat")):
        return Refusal("token_not_yet_valid")
    return None


def identity_of(claims: Claims, config: Issuer, *, kind: str, expires_at: float, hint: str) -> Identity | Refusal:
    """The identity that checked claims describe; `hint` names the session when the claims do not.

    `email` is taken only when the issuer says that it has verified it. Refusal `token_malformed`.
    """
    try:
        return Identity(
            issuer=config.issuer,
            subject=claims["sub"],
            kind=kind,
            session_hint=_session(claims, config) or hint,
            expires_at=expires_at,
            client_id=_client(claims),
            org=_org(claims),
            name=_display(claims, config.claims.name),
            email=_display(claims, (config.claims.email,)) if is_true(claims.get("email_verified")) else "",
            department=_department(claims, config),
            roles=_roles(claims, config),
            scopes=_scopes(claims.get("scope", "")),
            amr=_texts(claims.get("amr", []), "amr"),
            acr=claims.get("acr", ""),
            auth_time=claims.get("auth_time"),
            confirmation=_confirmation(claims.get("cnf", {})),
        )
    except _Bad as bad:
        return Refusal("token_malformed", str(bad))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable()


def _is_time(value: object) -> bool:
    """Whether this is a NumericDate (RFC 7519 section 2): finite, not negative; a bool is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= _MAX_TIME and math.isfinite(value)


def _client(claims: Claims) -> str:
    return str(claims.get("client_id") or claims.get("azp", ""))


def _session(claims: Claims, config: Issuer) -> str:
    if "sid" in claims:
        return str(claims["sid"])
    jti = str(claims.get("jti", ""))
    # Zitadel: a jti is "V2_<OIDC session>-at_<token>", and every token of the session shares the first half.
    head, mark, _ = jti.partition("-at_")
    return head if config.profile == "zitadel" and mark and head else jti


def _display(claims: Claims, where: Iterable[str]) -> str:
    """A text for people to read, the first that there is; one that is no name is left out."""
    return next((value for path in where if (value := text_at(claims, path))), "")


def _org(claims: Claims) -> str:
    value = claims.get("urn:zitadel:iam:user:resourceowner:id", claims.get("urn:zitadel:iam:org:id", ""))
    if value and not _is_text(value):
        raise _Bad("organisation")
    return str(value)


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(map(_is_text, value)):
        raise _Bad(name)
    return tuple(value)


def _scopes(value: object) -> tuple[str, ...]:
    if not isinstance(value, str) or not value.isprintable():
        raise _Bad("scope")
    return tuple(dict.fromkeys(value.split()))


def _confirmation(value: object) -> Mapping[str, str]:
    """The keys the token is bound to (RFC 7800); a way of binding we do not know refuses the token."""
    if not isinstance(value, dict) or not all(name in _CNF and _is_text(text) for name, text in value.items()):
        raise _Bad("cnf")
    return MappingProxyType(dict(value))


def _department(claims: Claims, config: Issuer) -> str:
    """The department, by `claims.department` or by `department_claim`; "" when it is missing or no plain text."""
    if config.claims.department:
        return text_at(claims, config.claims.department)
    where = config.department_claim
    value = claims.get(where)
    if value is None:
        claim, _, member = where.rpartition("/")
        holder = claims.get(claim)
        value = holder.get(member) if isinstance(holder, dict) else None
        # Zitadel: a user's metadata are base64url without padding.
        if claim == _METADATA and isinstance(value, str):
            raw = b64url_decode(value.rstrip("=")) or b""
            value = raw.decode("utf-8", errors="replace")
    return value if isinstance(value, str) and is_name(value) and "\ufffd" not in value else ""


def _roles(claims: Claims, config: Issuer) -> tuple[Role, ...]:
    """Roles with their organisation, sorted, each once; those at a path of `claims.roles` have no organisation."""
    paths = config.claims.roles or (("roles",) if config.profile == "strict" else ())
    plain = {(key, "") for path in paths for key in texts_at(claims, path)}
    granted = plain if config.profile == "strict" else plain | _project_roles(claims, config)
    return tuple(Role(key, org) for key, org in sorted(granted))


def _project_roles(claims: Claims, config: Issuer) -> set[tuple[str, str]]:
    """(role, organisation) of Zitadel's role claims."""
    # Zitadel: the claim without a project id holds the roles of the project that the token's client belongs to, which
    # need not be ours, and comes with the claims that name their project. So it counts only when it comes alone.
    projects = [name for name in claims if name.startswith(_ROLES_PREFIX) and name.endswith(_ROLES_SUFFIX)]
    named = [name for name in projects if name != _ROLES]
    ours = [name for name in named if name[len(_ROLES_PREFIX) : -len(_ROLES_SUFFIX)] in config.audiences]
    found: set[tuple[str, str]] = set()
    for name in ours if named else projects:
        granted = claims[name] if isinstance(claims[name], list) else [claims[name]]
        for grants in granted:
            found.update(_grants(grants))
    return found


def _grants(grants: object) -> list[tuple[str, str]]:
    """(role, organisation) of one `{"role": {"orgId": "domain"}}`; a role granted in no organisation is no role."""
    if not isinstance(grants, dict) or not all(isinstance(orgs, dict) for orgs in grants.values()):
        raise _Bad("roles")
    pairs = [(key, org) for key, orgs in grants.items() for org in orgs]
    if not all(_is_text(key) and _is_text(org) for key, org in pairs):
        raise _Bad("roles")
    return pairs
