"""Settings and policies of the emulated instance: weak by default, as a new Zitadel is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.demo.zitadel.wire import INVALID, PRECONDITION, ApiError, Call, Endpoint, seconds, without_zero

_LIFETIMES = ("accessTokenLifetime", "idTokenLifetime", "refreshTokenIdleExpiration", "refreshTokenExpiration")
_READ = {
    "login": "policies/login",
    "lockout": "policies/lockout",
    "password/complexity": "policies/password/complexity",
    "password/expiry": "policies/password/age",
}


class Settings:
    """What the instance is set to."""

    def __init__(self) -> None:
        # Zitadel C14: 8 characters of four classes; no password age; lockout off; no forced second factor; 12 h tokens.
        self.policies: dict[str, dict[str, Any]] = {
            "policies/login": {
                "allowUsernamePassword": True,
                "allowRegister": True,
                "allowExternalIdp": True,
                "forceMfa": False,
                "forceMfaLocalOnly": False,
                "secondFactors": ["SECOND_FACTOR_TYPE_OTP", "SECOND_FACTOR_TYPE_U2F"],
                "multiFactors": ["MULTI_FACTOR_TYPE_U2F_WITH_VERIFICATION"],
                "passwordCheckLifetime": "864000s",
                "externalLoginCheckLifetime": "864000s",
                "mfaInitSkipLifetime": "2592000s",
                "secondFactorCheckLifetime": "64800s",
                "multiFactorCheckLifetime": "43200s",
                "isDefault": True,
            },
            "policies/lockout": {"maxPasswordAttempts": "0", "maxOtpAttempts": "0", "isDefault": True},
            "policies/password/complexity": {
                "minLength": "8",
                **dict.fromkeys(("hasUppercase", "hasLowercase", "hasNumber", "hasSymbol"), True),
            },
            "policies/password/age": {"maxAgeDays": "0", "expireWarnDays": "0"},
            "settings/oidc": dict(zip(_LIFETIMES, ("43200s", "43200s", "2592000s", "7776000s"), strict=True)),
        }
        self.security: dict[str, Any] = {}

    def life_s(self, name: str) -> float:
        """A lifetime of settings/oidc in seconds."""
        return seconds(self.policies["settings/oidc"][name])

    @property
    def password_attempts(self) -> int:
        """Wrong passwords until the lock; 0 is never."""
        return int(self.policies["policies/lockout"].get("maxPasswordAttempts") or 0)

    @property
    def forces_mfa(self) -> bool:
        """Zitadel C14: enforced by the login pages alone, not by the API."""
        return bool(self.policies["policies/login"].get("forceMfa"))

    def endpoints(self) -> list[Endpoint]:
        """Reads of v2, writes of the admin API, and the same for an organisation."""
        endpoints = [Endpoint("GET", f"/v2/settings/{name}", "any", self._reader(_READ[name])) for name in _READ]
        endpoints.append(Endpoint("GET", "/v2/settings/security", "read", lambda _: {"settings": dict(self.security)}))
        for name in self.policies:
            sides = ("admin", "management") if name != "settings/oidc" else ("admin",)
            for side in sides:
                endpoints.append(Endpoint("GET", f"/{side}/v1/{name}", "read", self._holder(name)))
                written = "policies/password/lockout" if name == "policies/lockout" and side == "admin" else name
                endpoints.append(Endpoint("PUT", f"/{side}/v1/{written}", "write", self._writer(name)))
        return endpoints

    def _reader(self, name: str) -> Callable[[Call], dict[str, Any]]:
        def read(_: Call) -> dict[str, Any]:
            held = without_zero(self.policies[name])
            return {
                "settings": {key.replace("has", "requires", 1) if key[:3] == "has" else key: held[key] for key in held}
            }

        return read

    def _holder(self, name: str) -> Callable[[Call], dict[str, Any]]:
        member = "settings" if name == "settings/oidc" else "policy"
        return lambda _: {member: without_zero(self.policies[name])}

    def _writer(self, name: str) -> Callable[[Call], dict[str, Any]]:
        def write(call: Call) -> dict[str, Any]:
            new = dict(call.body)
            # Zitadel C14: all four are required.
            if name == "settings/oidc" and not all(seconds(new.get(key)) > 0 for key in _LIFETIMES):
                raise ApiError(INVALID, "Errors.OIDCSettings.Invalid", "COMMAND-d9nlw")
            present = self.policies[name]
            # A policy is replaced as a whole; what only can be read stays.
            read_only = {key: present[key] for key in ("secondFactors", "multiFactors") if key in present}
            if without_zero(read_only | new) == without_zero({k: v for k, v in present.items() if k != "isDefault"}):
                raise ApiError(PRECONDITION, "Errors.IAM.NotChanged", "INSTANCE-5M9vdd")
            self.policies[name] = read_only | {
                key: str(value) if isinstance(value, int) and not isinstance(value, bool) else value
                for key, value in new.items()
            }
            return {"details": {}}

        return write
