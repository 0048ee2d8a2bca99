"""The company's promise about sign-ins, as settings of a Zitadel instance; bootstrap sets them, check reads them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.identity.zitadel.api import number, seconds

LOCKOUT_ATTEMPTS = 5
MAX_AGE_DAYS, WARN_DAYS = 90, 14
MIN_LENGTH = 12
LIFETIMES_S = {
    "accessTokenLifetime": 900,
    "idTokenLifetime": 900,
    "refreshTokenIdleExpiration": 1_800,
    "refreshTokenExpiration": 86_400,
}
CHECK_LIFE_S = {
    "passwordCheckLifetime": 43_200,
    "externalLoginCheckLifetime": 43_200,
    "secondFactorCheckLifetime": 43_200,
    "multiFactorCheckLifetime": 43_200,
}
_CLASSES = ("hasUppercase", "hasLowercase", "hasNumber", "hasSymbol")
_LOGIN_MEMBERS = frozenset(
    {
        "allowUsernamePassword",
        "allowRegister",
        "allowExternalIdp",
        "forceMfa",
        "forceMfaLocalOnly",
        "passwordlessType",
        "hidePasswordReset",
        "ignoreUnknownUsernames",
        "defaultRedirectUri",
        "mfaInitSkipLifetime",
        "allowDomainDiscovery",
        "disableLoginWithEmail",
        "disableLoginWithPhone",
        *CHECK_LIFE_S,
    }
)

type Ask = Callable[[str, str, Mapping[str, Any] | None], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of the instance: where it is read and written (the admin service's paths), and what it is to be."""

    name: str
    read: str
    write: str
    member: str
    wanted: Callable[[Mapping[str, Any]], dict[str, Any]]

    async def apply(self, ask: Ask) -> str:
        """Set it where it differs: "kept" or "changed". What is stricter already is kept.

        A policy is replaced as a whole, so what is there is read first and goes back with the changes.
        """
        answer = await ask("GET", f"/admin/v1/{self.read}", None)
        document = answer.get(self.member)
        current = document if isinstance(document, dict) else {}
        new = self.wanted(current)
        # protojson: what is left out is zero, and numbers may be texts.
        changed = any(_plain(current.get(key)) != _plain(value) for key, value in new.items())
        if changed:
            await ask("PUT", f"/admin/v1/{self.write}", new)
        return "changed" if changed else "kept"


def _plain(value: object) -> str:
    return "" if not value or value in {"0", "0s"} else str(value)


def _login(held: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in held.items() if key in _LOGIN_MEMBERS}
    lives = {key: _at_most(held.get(key), limit) for key, limit in CHECK_LIFE_S.items()}
    return {**kept, **lives, "forceMfa": True, "forceMfaLocalOnly": False}


def _lockout(held: Mapping[str, Any]) -> dict[str, Any]:
    names = ("maxPasswordAttempts", "maxOtpAttempts")
    return {name: _fewest(number(held.get(name)), LOCKOUT_ATTEMPTS) for name in names}


def _complexity(held: Mapping[str, Any]) -> dict[str, Any]:
    return {"minLength": max(number(held.get("minLength")), MIN_LENGTH), **dict.fromkeys(_CLASSES, True)}


def _age(held: Mapping[str, Any]) -> dict[str, Any]:
    days = _fewest(number(held.get("maxAgeDays")), MAX_AGE_DAYS)
    return {"maxAgeDays": days, "expireWarnDays": number(held.get("expireWarnDays")) or min(WARN_DAYS, days)}


def _lifetimes(held: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _at_most(held.get(key), limit) for key, limit in LIFETIMES_S.items()}


def _fewest(held: int, limit: int) -> int:
    """The smaller of both; zero is no limit at all."""
    return min(held, limit) if held else limit


def _at_most(held: object, limit_s: int) -> str:
    life = seconds(held)
    return str(held) if 0 < life <= limit_s else f"{limit_s}s"


POLICIES = (
    Policy("login policy: forced second factor, shorter checks", "policies/login", "policies/login", "policy", _login),
    # Zitadel's admin service reads this policy at one path and writes it at another.
    Policy("lockout", "policies/lockout", "policies/password/lockout", "policy", _lockout),
    Policy(
        "password complexity", "policies/password/complexity", "policies/password/complexity", "policy", _complexity
    ),
    Policy("password rotation", "policies/password/age", "policies/password/age", "policy", _age),
    Policy("token lifetimes", "settings/oidc", "settings/oidc", "settings", _lifetimes),
)
