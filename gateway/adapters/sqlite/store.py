"""The gateway's records in one SQLite file that several processes share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gateway.adapters.sqlite import schema as sql
from gateway.adapters.sqlite.changes import SqliteChanges, add_change
from gateway.adapters.sqlite.file import Connection
from gateway.core.ports.stores import DeviceChange, DeviceRecord, IssuedCertificate, SessionRecord

_REVOCATION_KEPT_S = 400 * 86_400


class SqliteStore(SqliteChanges):
    """Meets `gateway.core.ports.Store`."""

    # ---- devices ----

    async def device(self, device_id: str) -> DeviceRecord | None:
        """The record, None for an unknown id."""
        row = self.one(sql.GET_DEVICE, (device_id,))
        return None if row is None else _device(row)

    async def devices(self) -> Sequence[DeviceRecord]:
        """Every record, newest first."""
        return [_device(row) for row in self.every(sql.LIST_DEVICES, ())]

    async def add_device(self, record: DeviceRecord) -> bool:
        """Insert a record; False, and nothing is written, when there is one of its id."""
        now, row = self.clock(), _device_row(record)

        def write(db: Connection) -> bool:
            if not db.execute(sql.ADD_DEVICE, row).rowcount:
                return False
            add_change(db, now, "device", record.id)
            return True

        return await self.write(write)

    async def change_device(self, device_id: str, change: DeviceChange) -> DeviceRecord | None:
        """Apply a change to the record as it is; the transaction has the file's write lock from its beginning."""
        now = self.clock()

        def write(db: Connection) -> DeviceRecord | None:
            row = db.execute(sql.GET_DEVICE, (device_id,)).fetchone()
            record = None if row is None else _device(row)
            changed = None if record is None else record.apply(change)
            if changed is None:
                return record
            db.execute(sql.CHANGE_DEVICE, (*_device_row(changed), device_id))
            add_change(db, now, "device", device_id)
            return changed

        return await self.write(write)

    async def add_enrolment(self, token_sha256: str, device_id: str, expires_at: float) -> None:
        """Remember a one-time token by the hex SHA-256 of its text."""
        now = self.clock()

        def write(db: Connection) -> None:
            db.execute("DELETE FROM enrolments WHERE expires_at <= ?", (now,))
            db.execute("INSERT INTO enrolments VALUES (?, ?, ?)", (token_sha256, device_id, expires_at))

        await self.write(write)

    async def take_enrolment(self, token_sha256: str, now: float) -> str | None:
        """Consume a token atomically: its device id, or None when it is unknown, used or expired."""
        statement = "DELETE FROM enrolments WHERE token_sha256 = ? AND expires_at > ? RETURNING device_id"
        row = await self.write(lambda db: db.execute(statement, (token_sha256, now)).fetchone())
        return None if row is None else str(row[0])

    async def add_certificate(self, certificate: IssuedCertificate) -> None:
        """Remember an issued certificate."""
        now = self.clock()
        row = (certificate.serial, certificate.device_id, certificate.not_before, certificate.not_after)

        def write(db: Connection) -> None:
            db.execute("DELETE FROM certificates WHERE not_after <= ?", (now,))
            db.execute("INSERT INTO certificates VALUES (?, ?, ?, ?)", row)

        await self.write(write)

    async def revoked_certificates(self, now: float) -> Sequence[tuple[IssuedCertificate, float]]:
        """Unexpired certificates of revoked devices, each with the time of the revocation."""
        rows = self.every(sql.REVOKED_CERTIFICATES, (now,))
        return [(IssuedCertificate(*row[:4]), now if row[4] is None else row[4]) for row in rows]

    # ---- sessions ----

    async def session(self, session_id: str) -> SessionRecord | None:
        """The record, None for an unknown id."""
        row = self.one(sql.GET_SESSION, (session_id,))
        return None if row is None else SessionRecord(*row)

    async def sessions(self, subject: str | None = None) -> Sequence[SessionRecord]:
        """Unexpired sessions, newest first, of one subject or of all."""
        return [SessionRecord(*row) for row in self.every(sql.LIST_SESSIONS, {"now": self.clock(), "subject": subject})]

    async def put_session(self, record: SessionRecord) -> None:
        """Insert, or refresh `last_seen_at` and `expires_at`; never clears a revocation."""
        now = self.clock()
        row = (
            record.id,
            record.issuer,
            record.subject,
            record.identity,
            record.device_id,
            record.created_at,
            record.last_seen_at,
            record.expires_at,
            record.revoked_at,
            record.revoked_why,
        )
        # Another token of a revoked session may live longer than those seen so far, so the revocation must as well.
        prune = "DELETE FROM sessions WHERE expires_at <= ? AND (revoked_at IS NULL OR expires_at <= ?)"

        def write(db: Connection) -> None:
            db.execute(prune, (now, now - _REVOCATION_KEPT_S))
            db.execute(sql.PUT_SESSION, row)

        await self.write(write)

    async def revoke_session(self, session_id: str, now: float, why: str) -> bool:
        """Revoke; False for an unknown id. The first revocation's time and reason stay."""
        statement = """UPDATE sessions SET revoked_why = CASE WHEN revoked_at IS NULL THEN :why ELSE revoked_why END,
                 revoked_at = coalesce(revoked_at, :now) WHERE id = :id"""
        values = {"id": session_id, "now": now, "why": why}

        def write(db: Connection) -> bool:
            # Told for an unknown id too: a session that leaves no record has connections all the same.
            add_change(db, now, "session", session_id)
            return db.execute(statement, values).rowcount == 1

        return await self.write(write)

    # ---- things used once, secrets ----

    async def first_use(self, key: str, now: float, expires_at: float) -> bool:
        """Whether `key` is used for the first time before `expires_at`, atomically."""
        values = {"key": key, "now": now, "expires_at": expires_at}

        def write(db: Connection) -> bool:
            first = db.execute(sql.FIRST_USE, values).rowcount == 1
            db.execute("DELETE FROM used WHERE expires_at <= ?", (now,))
            return first

        return await self.write(write)

    async def secrets(self, purpose: str) -> Sequence[tuple[str, float, bytes]]:
        """(name, created_at, value) of every secret of a purpose, newest first. StoreDown when one does not open."""
        statement = "SELECT name, created_at, sealed FROM secrets WHERE purpose = ? ORDER BY created_at DESC, name DESC"
        return [
            (name, created_at, self.unsealed(purpose, name, sealed))
            for name, created_at, sealed in self.every(statement, (purpose,))
        ]

    async def put_secret(self, purpose: str, name: str, created_at: float, value: bytes) -> bool:
        """Add a secret; False when one of that purpose and name is there already."""
        row = (purpose, name, created_at, self.seal.seal(purpose, name, value))
        return (
            await self.write(lambda db: db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?, ?, ?)", row).rowcount)
            == 1
        )

    async def drop_secret(self, purpose: str, name: str) -> None:
        """Forget a secret."""
        statement = "DELETE FROM secrets WHERE purpose = ? AND name = ?"
        await self.write(lambda db: db.execute(statement, (purpose, name)).rowcount)


def _device_row(record: DeviceRecord) -> tuple[Any, ...]:
    return (
        record.id,
        record.name,
        record.owner,
        record.department,
        record.status,
        record.created_at,
        record.enrolled_at,
        record.revoked_at,
        record.revoked_why,
        json.dumps(dict(record.posture)),
    )


def _device(row: Sequence[Any]) -> DeviceRecord:
    posture = row[9]
    return DeviceRecord(*[*row[:9], {} if posture == "{}" else json.loads(posture)])
