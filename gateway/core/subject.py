"""Who and what is asking: verified values only. Unverified data is called `Claimed...` and lives with its verifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Device:
    """An enrolled machine whose certificate verified in this TLS handshake and whose record is in good standing.

    `id` is the device's UUID, `cert_sha256` the base64url SHA-256 of its DER certificate (RFC 8705 section 3.1).
    """

    id: str
    cert_sha256: str
    owner: str = ""
    department: str = ""
    posture: Mapping[str, Any] = _NOTHING

    def document(self) -> dict[str, Any]:
        """The device as policy sees it."""
        return {
            "id": self.id,
            "verified": True,
            "posture": dict(self.posture),
            "cert_sha256": self.cert_sha256,
            "owner": self.owner,
            "department": self.department,
        }


@dataclass(frozen=True, slots=True)
class Role:
    """A role granted in one organisation; the organisation is the tenant boundary, so policy tests both."""

    key: str
    org: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A person or service account, as a verified token says. Times are seconds since the epoch, None when unknown.

    `session_hint` is the issuer's name for the login session behind the token where it gives one, else the token's id;
    `confirmation` is the `cnf` claim (RFC 7800): the key the token is bound to, empty for a plain bearer token.
    """

    issuer: str
    subject: str
    kind: str  # "jwt" | "opaque" | "session"
    session_hint: str
    expires_at: float
    client_id: str = ""
    org: str = ""
    name: str = ""
    email: str = ""
    department: str = ""
    roles: tuple[Role, ...] = ()
    scopes: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()
    acr: str = ""
    auth_time: float | None = None
    confirmation: Mapping[str, str] = field(default=_NOTHING)

    def document(self) -> dict[str, Any]:
        """The identity as policy sees it."""
        return {
            "iss": self.issuer,
            "sub": self.subject,
            "kind": self.kind,
            "client_id": self.client_id,
            "org": self.org,
            "name": self.name,
            "email": self.email,
            "department": self.department,
            "roles": [{"key": role.key, "org": role.org} for role in self.roles],
            "scopes": list(self.scopes),
            "amr": list(self.amr),
            "acr": self.acr,
            "auth_time": self.auth_time,
        }


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in use of the gateway. `bound_by` names the proofs that tie it to its holder, strongest first.

    Until `elevated_until` the session has what was proven to the gateway at `elevated_at`: the values `elevated_amr`.
    """

    id: str
    created_at: float
    bound_by: tuple[str, ...] = ()
    elevated_until: float | None = None
    elevated_at: float | None = None
    elevated_amr: tuple[str, ...] = ()

    def document(self, now: float) -> dict[str, Any]:
        """The session as policy sees it at `now`."""
        return {
            "id": self.id,
            "age_s": max(0, int(now - self.created_at)),
            "bound_by": list(self.bound_by),
            "elevated_until": self.elevated_until,
            "elevated_at": self.elevated_at,
            "elevated_amr": list(self.elevated_amr),
        }


def subject_key(issuer: str, subject: str) -> str:
    """One text for an issuer and a subject (or another name that the issuer gives), that no other two give."""
    return f"{len(issuer)}|{issuer}|{subject}"
