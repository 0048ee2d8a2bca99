"""All of the gateway's state in one SQLite file that several processes share.

Laws: what a method acknowledged survives kill -9 and a power cut (WAL, synchronous=FULL). Whatever SQLite raises is
`StoreDown`. Reads run inline, they take microseconds; writes run one after the other in a thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.adapters import statements as sql
from gateway.adapters.sealing import Seal
from gateway.core.ports import DeviceRecord, IssuedCertificate, SessionRecord, StoreDown

_READ_WAIT_MS, _WRITE_WAIT_MS = 250, 5_000  # a read waits on the event loop, so it must give up soon
_REVOCATION_KEPT_S = 400 * 86_400

type _Write[T] = Callable[[sqlite3.Connection], T]


class SqliteStore:
    """Meets `gateway.core.ports.Store`. Open it after a fork, never before; `close` it at the end.

    Raises StoreDown when the file cannot be opened, is of a newer version, or stands where others may replace it.
    """

    def __init__(self, path: Path, master_key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._seal = Seal(master_key)
        self._clock = clock
        try:
            _prepare_file(path)
            self._path, self._file = path, _inode(path)
            with contextlib.ExitStack() as undo:
                self._writer = undo.enter_context(contextlib.closing(_connect(path, _WRITE_WAIT_MS)))
                _migrate(self._writer)
                self._reader = _connect(path, _READ_WAIT_MS)
                undo.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise StoreDown(f"{path}: {error}") from error
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")

    # ---- devices ----

    async def device(self, device_id: str) -> DeviceRecord | None:
        """The record, None for an unknown id."""
        row = self._one(sql.GET_DEVICE, (device_id,))
        return None if row is None else _device(row)

    async def devices(self) -> Sequence[DeviceRecord]:
        """Every record, newest first."""
        return [_device(row) for row in self._all(sql.LIST_DEVICES, ())]

    async def put_device(self, record: DeviceRecord) -> None:
        """Insert or replace a record; a revoked one is never replaced by one that is not revoked."""
        row = (
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
        await self._write(lambda db: db.execute(sql.PUT_DEVICE, row).rowcount)

    async def add_enrolment(self, token_sha256: str, device_id: str, expires_at: float) -> None:
        """Remember a one-time token by the hex SHA-256 of its text."""
        now = self._clock()

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM enrolments WHERE expires_at <= ?", (now,))
            db.execute("INSERT INTO enrolments VALUES (?, ?, ?)", (token_sha256, device_id, expires_at))

        await self._write(write)

    async def take_enrolment(self, token_sha256: str, now: float) -> str | None:
        """Consume a token atomically: its device id, or None when it is unknown, used or expired."""
        statement = "DELETE FROM enrolments WHERE token_sha256 = ? AND expires_at > ? RETURNING device_id"
        row = await self._write(lambda db: db.execute(statement, (token_sha256, now)).fetchone())
        return None if row is None else str(row[0])

    async def add_certificate(self, certificate: IssuedCertificate) -> None:
        """Remember an issued certificate."""
        now = self._clock()
        row = (certificate.serial, certificate.device_id, certificate.not_before, certificate.not_after)

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM certificates WHERE not_after <= ?", (now,))
            db.execute("INSERT INTO certificates VALUES (?, ?, ?, ?)", row)

        await self._write(write)

    async def revoked_certificates(self, now: float) -> Sequence[tuple[IssuedCertificate, float]]:
        """Unexpired certificates of revoked devices, each with the time of the revocation."""
        rows = self._all(sql.REVOKED_CERTIFICATES, (now,))
        return [(IssuedCertificate(*row[:4]), now if row[4] is None else row[4]) for row in rows]

    # ---- sessions ----

    async def session(self, session_id: str) -> SessionRecord | None:
        """The record, None for an unknown id."""
        row = self._one(sql.GET_SESSION, (session_id,))
        return None if row is None else SessionRecord(*row)

    async def sessions(self, subject: str | None = None) -> Sequence[SessionRecord]:
        """Unexpired sessions, newest first, of one subject or of all."""
        return [SessionRecord(*row) for row in self._all(sql.LIST_SESSIONS, {"now": self._clock(), "subject": subject})]

    async def put_session(self, record: SessionRecord) -> None:
        """Insert, or refresh `last_seen_at` and `expires_at`; never clears a revocation."""
        now = self._clock()
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

        def write(db: sqlite3.Connection) -> None:
            db.execute(prune, (now, now - _REVOCATION_KEPT_S))
            db.execute(sql.PUT_SESSION, row)

        await self._write(write)

    async def revoke_session(self, session_id: str, now: float, why: str) -> bool:
        """Revoke; False for an unknown id. The first revocation's time and reason stay."""
        statement = """UPDATE sessions SET revoked_why = CASE WHEN revoked_at IS NULL THEN :why ELSE revoked_why END,
                 revoked_at = coalesce(revoked_at, :now) WHERE id = :id"""
        values = {"id": session_id, "now": now, "why": why}
        return await self._write(lambda db: db.execute(statement, values).rowcount) == 1

    # ---- things used once, secrets ----

    async def first_use(self, key: str, now: float, expires_at: float) -> bool:
        """Whether `key` is used for the first time before `expires_at`, atomically."""
        values = {"key": key, "now": now, "expires_at": expires_at}

        def write(db: sqlite3.Connection) -> bool:
            first = db.execute(sql.FIRST_USE, values).rowcount == 1
            db.execute("DELETE FROM used WHERE expires_at <= ?", (now,))
            return first

        return await self._write(write)

    async def secrets(self, purpose: str) -> Sequence[tuple[str, float, bytes]]:
        """(name, created_at, value) of every secret of a purpose, newest first. StoreDown when one does not open."""
        statement = "SELECT name, created_at, sealed FROM secrets WHERE purpose = ? ORDER BY created_at DESC, name DESC"
        try:
            return [
                (name, created_at, self._seal.open(purpose, name, sealed))
                for name, created_at, sealed in self._all(statement, (purpose,))
            ]
        except ValueError as error:
            raise StoreDown(str(error)) from error

    async def put_secret(self, purpose: str, name: str, created_at: float, value: bytes) -> bool:
        """Add a secret; False when one of that purpose and name is there already."""
        row = (purpose, name, created_at, self._seal.close(purpose, name, value))
        return (
            await self._write(lambda db: db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?, ?, ?)", row).rowcount)
            == 1
        )

    async def drop_secret(self, purpose: str, name: str) -> None:
        """Forget a secret."""
        statement = "DELETE FROM secrets WHERE purpose = ? AND name = ?"
        await self._write(lambda db: db.execute(statement, (purpose, name)).rowcount)

    # ---- the store itself ----

    async def ping(self) -> None:
        """Raise StoreDown unless the store can be read and written, and its file is still the one that was opened."""
        statement = "INSERT INTO heartbeat VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at"
        now = self._clock()
        await self._write(lambda db: db.execute(statement, (now,)).rowcount)
        self._one("SELECT at FROM heartbeat", ())
        if _inode(self._path) != self._file:
            raise StoreDown(f"{self._path} was removed or replaced")

    async def close(self) -> None:
        """Wait for the last write, then close the store."""
        await asyncio.to_thread(self._thread.shutdown)
        self._reader.close()
        self._writer.close()

    def _one(self, statement: str, values: Sequence[Any]) -> Any:
        try:
            return self._reader.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise StoreDown(str(error)) from error

    def _all(self, statement: str, values: Any) -> list[Any]:
        try:
            return self._reader.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreDown(str(error)) from error

    async def _write[T](self, work: _Write[T]) -> T:
        try:
            future = self._thread.submit(self._transact, work)
        except RuntimeError as error:
            raise StoreDown("the store is closed") from error
        return await asyncio.wrap_future(future)

    def _transact[T](self, work: _Write[T]) -> T:
        try:
            with self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                return work(self._writer)
        except sqlite3.Error as error:
            raise StoreDown(str(error)) from error


def _device(row: Sequence[Any]) -> DeviceRecord:
    posture = row[9]
    return DeviceRecord(*[*row[:9], {} if posture == "{}" else json.loads(posture)])


def _prepare_file(path: Path) -> None:
    """A file of mode 0600 in a folder that nobody else may write to; SQLite gives its side files the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(path.parent.stat().st_mode) & 0o022:
        raise PermissionError(f"{path.parent} may be written by others; chmod 700 it")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _connect(path: Path, wait_ms: int) -> sqlite3.Connection:
    with contextlib.ExitStack() as undo:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=wait_ms / 1000)
        undo.callback(db.close)
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA trusted_schema = OFF")
        undo.pop_all()
    return db


def _migrate(db: sqlite3.Connection) -> None:
    """Make the schema, once, whoever starts at the same time. Raises OSError for a file of a newer version."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > sql.VERSION:
            raise OSError(f"state of version {version}; this gateway knows version {sql.VERSION}")
        if version == 0:
            for statement in sql.SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {sql.VERSION}")
