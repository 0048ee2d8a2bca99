"""The news for every worker, in the SQLite file of the store.

A change is written in the transaction that makes it, so it is there when what it tells of is, and never without it.
Followers look for the last number; that costs microseconds, so they do it often.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from gateway.adapters.sqlite import schema as sql
from gateway.adapters.sqlite.file import Connection, SqliteFile
from gateway.core.ports.stores import Change

_POLL_S = 0.02
_KEPT, _KEPT_S = 10_000, 3_600.0


class SqliteChanges(SqliteFile):
    """Meets `gateway.core.ports.Changes`."""

    async def announce(self, kind: str, key: str) -> None:
        """Tell every follower that something changed."""
        now = self.clock()
        await self.write(lambda db: add_change(db, now, kind, key))

    async def latest(self) -> int:
        """The number of the last change, 0 before the first."""
        row = self.one(sql.LAST_CHANGE)
        return 0 if row is None else int(row[0])

    async def changes(self, after: int) -> Sequence[Change] | None:
        """Every change after a number; None when some are forgotten or the number was never given."""
        if after > await self.latest():
            return None
        found = [Change(*row) for row in self.every(sql.LIST_CHANGES, (after,))]
        is_whole = found[0].seq == after + 1 if found else after == await self.latest()
        return found if is_whole else None

    async def wait(self, after: int, timeout_s: float) -> None:
        """Return when there is a change after a number, or after so long."""
        until = time.monotonic() + timeout_s
        while await self.latest() == after and (left := until - time.monotonic()) > 0:  # noqa: ASYNC110  (a file)
            await asyncio.sleep(min(_POLL_S, left))


def add_change(db: Connection, now: float, kind: str, key: str) -> None:
    """Write a change as a part of the transaction that makes it."""
    seq = db.execute(sql.ADD_CHANGE, (now, kind, key)).lastrowid or 0
    db.execute(sql.PRUNE_CHANGES, (seq - _KEPT, now - _KEPT_S))
