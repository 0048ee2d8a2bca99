"""One SQLite file that several processes share: how it is opened, read and written.

Laws: what a write acknowledged survives kill -9 and a power cut (WAL, synchronous=FULL). Whatever SQLite raises is
`StoreDown`. Reads run inline, they take microseconds; writes run one after the other in a thread of their own, and
those that wait together become durable together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.adapters.sealing import Seal
from gateway.adapters.sqlite import schema as sql
from gateway.core.ports.stores import StoreDown

_TOGETHER = 128  # writes in one transaction
_READ_WAIT_MS, _WRITE_WAIT_MS = 250, 5_000  # a read waits on the event loop, so it must give up soon

_EMPTY_LOG_S = 1.0

type Connection = sqlite3.Connection
type Work[T] = Callable[[Connection], T]


class SqliteFile:
    """An open file with the seal of its values. Open it after a fork, never before; `close` it at the end.

    Raises StoreDown when the file cannot be opened, is of a newer version, or stands where others may replace it.
    """

    def __init__(self, path: Path, master_key: bytes, clock: Callable[[], float] = time.time) -> None:
        self.seal = Seal(master_key)
        self.clock = clock
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
        self._has_deleted, self._emptied_at = False, 0.0
        self._waiting: deque[tuple[Work[Any], Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")

    def one(self, statement: str, values: Any = ()) -> Any:
        """The first row of a query, None without one. Raises StoreDown."""
        try:
            return self._reader.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise StoreDown(str(error)) from error

    def every(self, statement: str, values: Any = ()) -> list[Any]:
        """Every row of a query. Raises StoreDown."""
        try:
            return self._reader.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreDown(str(error)) from error

    async def write[T](self, work: Work[T]) -> T:
        """What `work` answers; what it does is durable then, all of it or nothing. Raises StoreDown."""
        answer: Future[T] = Future()
        self._waiting.append((work, answer))
        try:
            self._thread.submit(self._transact)
        except RuntimeError as error:
            raise StoreDown("the store is closed") from error
        return await asyncio.wrap_future(answer)

    def unsealed(self, purpose: str, name: str, sealed: bytes) -> bytes:
        """A sealed value, opened. Raises StoreDown when it does not open."""
        try:
            return self.seal.unseal(purpose, name, sealed)
        except ValueError as error:
            raise StoreDown(str(error)) from error

    async def ping(self) -> None:
        """Raise StoreDown unless the store can be read and written, and its file is still the one that was opened."""
        statement = "INSERT INTO heartbeat VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at"
        now = self.clock()
        await self.write(lambda db: db.execute(statement, (now,)).rowcount)
        self.one("SELECT at FROM heartbeat")
        if _inode(self._path) != self._file:
            raise StoreDown(f"{self._path} was removed or replaced")

    async def close(self) -> None:
        """Wait for the last write, then close the store."""
        await asyncio.to_thread(self._thread.shutdown)
        self._reader.close()
        self._writer.close()

    def _transact(self) -> None:
        """Run what waits in one transaction, and answer when it is durable; what fails is undone alone."""
        waiting = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
        batch = [(work, answer) for work, answer in waiting if answer.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            with self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                done = [(answer, *self._step(work)) for work, answer in batch]
        except Exception as error:  # noqa: BLE001  (handed to who asked for it)
            done = [(answer, None, error) for _, answer in batch]
        self._empty_log()
        for answer, result, failed in done:
            if failed is None:
                answer.set_result(result)
            else:
                answer.set_exception(StoreDown(str(failed)) if isinstance(failed, sqlite3.Error) else failed)

    def mark_deleted(self) -> None:
        """Something was deleted that the write-ahead log may still hold: it is emptied soon. From a write only."""
        self._has_deleted = True

    def _empty_log(self) -> None:
        """Move the log into the file and cut it off, at most once a second; readers may put it off to a later write."""
        now = time.monotonic()
        if not self._has_deleted or now - self._emptied_at < _EMPTY_LOG_S:
            return
        self._emptied_at = now
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("PRAGMA busy_timeout = 50")
            try:
                busy = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                self._writer.execute(f"PRAGMA busy_timeout = {_WRITE_WAIT_MS}")
            self._has_deleted = bool(busy)

    def _step(self, work: Work[Any]) -> tuple[Any, Exception | None]:
        """What one piece of work answers, or why it was undone. Raises what made SQLite undo the whole."""
        self._writer.execute("SAVEPOINT step")
        result, failed = None, None
        try:
            result = work(self._writer)
        except Exception as error:
            if not self._writer.in_transaction:  # a full disk undoes the whole
                raise
            failed = error
            self._writer.execute("ROLLBACK TO step")
        self._writer.execute("RELEASE step")
        return result, failed


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
        _write_ahead(db, wait_ms)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA trusted_schema = OFF")
        # What is deleted is written over, not only forgotten.
        db.execute("PRAGMA secure_delete = ON")
        undo.pop_all()
    return db


def _write_ahead(db: sqlite3.Connection, wait_ms: int) -> None:
    """Turn the write-ahead log on. SQLite does not wait by itself when two who start at once both turn it on."""
    until = time.monotonic() + wait_ms / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)
        else:
            return


def _migrate(db: sqlite3.Connection) -> None:
    """Make what the schema lacks, once, whoever starts at the same time. Raises OSError for a file of a newer version.

    `user_version` says how many of `SCHEMAS` the file has.
    """
    with db:
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(sql.SCHEMAS):
            raise OSError(f"state of version {version}; this gateway knows version {len(sql.SCHEMAS)}")
        for schema in sql.SCHEMAS[version:]:
            for statement in schema.split(";\n"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(sql.SCHEMAS)}")
