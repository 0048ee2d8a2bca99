"""Stores: devices, sessions, one-time values, secrets, changes.

Every method is durable when it returns, and raises StoreDown when the store cannot be used. `StoreDown` is the one
exception a caller branches on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol


class StoreDown(Exception):
    """The state store cannot be read or written. Answered with `store_down`, never with access."""


class StoreLost(StoreDown):
    """The store answers, and is not what it was: emptied, another one, or without writes that it had acknowledged."""


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device as enrolled. `status` is "pending" (token given, not enrolled yet), "active" or "revoked"."""

    id: str
    name: str
    owner: str
    department: str
    status: str
    created_at: float
    enrolled_at: float | None = None
    revoked_at: float | None = None
    revoked_why: str = ""
    posture: Mapping[str, Any] = field(default_factory=dict)

    def revoke(self, now: float, why: str) -> DeviceRecord:
        """This record, revoked; one that is revoked already stays as it is."""
        if self.status == "revoked":
            return self
        return replace(self, status="revoked", revoked_at=now, revoked_why=why)

    def apply(self, change: DeviceChange) -> DeviceRecord | None:
        """What `change` makes of this record, None when there is nothing to write.

        Raises ValueError for a change of the id, and for one that undoes or alters a revocation.
        """
        changed = change(self)
        if changed is None or changed == self:
            return None
        revocation = (self.status, self.revoked_at, self.revoked_why)
        is_revoked = self.status == "revoked"
        if is_revoked and (changed.status, changed.revoked_at, changed.revoked_why) != revocation:
            raise ValueError("a revocation is final")
        if changed.id != self.id:
            raise ValueError("a device keeps its id")
        return changed


type DeviceChange = Callable[[DeviceRecord], DeviceRecord | None]


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate our PKI signed. `serial` is lower-case hex; times are seconds since the epoch."""

    serial: str
    device_id: str
    not_before: float
    not_after: float


class DeviceStore(Protocol):
    """Device records, one-time enrolment tokens, issued certificates."""

    async def device(self, device_id: str) -> DeviceRecord | None:
        """The record, None for an unknown id."""

    async def devices(self) -> Sequence[DeviceRecord]:
        """Every record, newest first."""

    async def add_device(self, record: DeviceRecord) -> bool:
        """Insert a record; False, and nothing is written, when there is one of its id."""

    async def change_device(self, device_id: str, change: DeviceChange) -> DeviceRecord | None:
        """Apply `change` to the record as it is, in one step: the record afterwards, None for an unknown id.

        `change` has no effect of its own: it is called again when somebody else wrote meanwhile. It answers None where
        there is nothing to write. Raises what `DeviceRecord.apply` raises.
        """

    async def add_enrolment(self, token_sha256: str, device_id: str, expires_at: float) -> None:
        """Remember a one-time token by the hex SHA-256 of its text."""

    async def take_enrolment(self, token_sha256: str, now: float) -> str | None:
        """Consume a token atomically: its device id, or None when it is unknown, used or expired."""

    async def add_certificate(self, certificate: IssuedCertificate) -> None:
        """Remember an issued certificate."""

    async def revoked_certificates(self, now: float) -> Sequence[tuple[IssuedCertificate, float]]:
        """Unexpired certificates of revoked devices, each with the time of the revocation."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as the store keeps it. `identity` is the subject's display form for lists."""

    id: str
    issuer: str
    subject: str
    identity: str
    device_id: str
    created_at: float
    last_seen_at: float
    expires_at: float
    revoked_at: float | None = None
    revoked_why: str = ""


class SessionStore(Protocol):
    """Sessions and their revocation."""

    async def session(self, session_id: str) -> SessionRecord | None:
        """The record, None for an unknown id."""

    async def sessions(self, subject: str | None = None) -> Sequence[SessionRecord]:
        """Unexpired sessions, newest first, of one subject or of all."""

    async def put_session(self, record: SessionRecord) -> None:
        """Insert, or refresh `last_seen_at` and `expires_at`; never clears a revocation."""

    async def revoke_session(self, session_id: str, now: float, why: str) -> bool:
        """Revoke; False for an unknown id. A revocation outlives the session's expiry by at least 400 days."""


class ReplayStore(Protocol):
    """Things that may be used once."""

    async def first_use(self, key: str, now: float, expires_at: float) -> bool:
        """Whether `key` is used for the first time before `expires_at`, atomically."""


class SecretStore(Protocol):
    """Small secrets that every worker shares (signing keys), sealed at rest."""

    async def secrets(self, purpose: str) -> Sequence[tuple[str, float, bytes]]:
        """(name, created_at, value) of every secret of a purpose, newest first."""

    async def put_secret(self, purpose: str, name: str, created_at: float, value: bytes) -> bool:
        """Add a secret; False when one of that purpose and name is there already."""

    async def drop_secret(self, purpose: str, name: str) -> None:
        """Forget a secret."""


class SessionEnder(Protocol):
    """Ends what a person is signed in with, at once and on every worker. Raises StoreDown."""

    async def end_login_sessions(
        self, issuer: str, *, sid: str | None = None, subject: str | None = None, why: str, before: float | None = None
    ) -> int:
        """End the login sessions of an issuer's `sid`, or all of a `subject`, and the matching bearer sessions.

        `before`: a time of the issuer's; a `subject` keeps the sign-ins that were completed after it. How many login
        sessions and bearer sessions were ended. With neither, none.
        """


@dataclass(frozen=True, slots=True)
class Change:
    """Something that open connections may hang on has changed. `seq` grows by one with every change.

    `kind` is "session" (`key`: the session's id), "device" (its id), "subject" (issuer and subject, see `subject_key`)
    or "all".
    """

    seq: int
    kind: str
    key: str


class Changes(Protocol):
    """News for every worker and machine: what changed, in order, with nothing lost unnoticed.

    The store announces what it knows itself, in the same transaction: `revoke_session` ("session", whether the id is
    known or not), `add_device` and `change_device` ("device"). Raises StoreDown.
    """

    async def announce(self, kind: str, key: str) -> None:
        """Tell every follower that something changed."""

    async def latest(self) -> int:
        """The number of the last change, 0 before the first."""

    async def changes(self, after: int) -> Sequence[Change] | None:
        """Every change after number `after`, oldest first.

        None when some of them are forgotten, or when the store has begun anew (its `latest` is less than `after`): the
        caller then judges everything again. At least the last 10,000 changes and the last hour are kept.
        """

    async def wait(self, after: int, timeout_s: float) -> None:
        """Return when there may be changes after number `after`, within tens of milliseconds, or after `timeout_s`."""


class Store(DeviceStore, SessionStore, ReplayStore, SecretStore, Changes, Protocol):
    """All of the gateway's state in one place."""

    async def ping(self) -> None:
        """Raise StoreDown unless the store can be read and written."""

    async def close(self) -> None:
        """Close the store."""
