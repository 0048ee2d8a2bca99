"""Small values with an end, in the SQLite file of the store.

Laws: a value is sealed under its collection and key, so one that is moved does not open. A version is given once in the
life of the file: a write over version n never goes over a document that came after it. What has ended is not there, and
is removed by later writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.adapters.sqlite import schema as sql
from gateway.adapters.sqlite.file import Connection, SqliteFile
from gateway.core.ports.documents import Document


class SqliteDocuments:
    """Meets `gateway.core.ports.Documents`. It lives as long as `file`, a store that is open, and uses its clock."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def get(self, collection: str, key: str, now: float) -> Document | None:
        """The document, None when it is not there or has ended."""
        row = self._file.one(sql.GET_DOCUMENT, (collection, key, now))
        return None if row is None else self._document(collection, key, *row)

    async def put(
        self, collection: str, key: str, value: bytes, expires_at: float, *, version: int, group: str = ""
    ) -> bool:
        """Write only over `version` (0: nothing is there); whether it was written."""
        return await self._write(collection, key, value, expires_at, version=version, group=group)

    async def overwrite(self, collection: str, key: str, value: bytes, expires_at: float, *, group: str = "") -> None:
        """Write whatever is there."""
        await self._write(collection, key, value, expires_at, version=None, group=group)

    async def _write(
        self, collection: str, key: str, value: bytes, expires_at: float, *, version: int | None, group: str
    ) -> bool:
        now = self._file.clock()
        sealed = self._file.seal.seal(_purpose(collection), key, value)

        def write(db: Connection) -> bool:
            if db.execute(sql.PRUNE_DOCUMENTS, (now,)).rowcount:
                self._file.mark_deleted()
            there, first = db.execute(sql.FIND_DOCUMENT, (collection, key, now)).fetchone() or (0, None)
            if version is not None and version != there:
                return False
            db.execute(sql.PUT_DOCUMENT, (collection, key, group, first, expires_at, sealed))
            return True

        return await self._file.write(write)

    async def take(self, collection: str, key: str, now: float) -> Document | None:
        """Read and delete in one step: of several callers one gets it."""
        row = await self._remove(collection, key, now)
        return None if row is None else self._document(collection, key, *row)

    async def delete(self, collection: str, key: str) -> bool:
        """Delete; whether it was there."""
        return await self._remove(collection, key, self._file.clock()) is not None

    async def list(self, collection: str, group: str, now: float) -> Sequence[Document]:
        """Every document of a group that has not ended, oldest first; no group has no documents."""
        rows = self._file.every(sql.LIST_DOCUMENTS, (collection, group, now))
        return [self._document(collection, *row) for row in rows]

    async def _remove(self, collection: str, key: str, now: float) -> Any:
        def remove(db: Connection) -> Any:
            taken = db.execute(sql.TAKE_DOCUMENT, (collection, key)).fetchone()
            if taken is not None:
                self._file.mark_deleted()
            return taken

        row = await self._file.write(remove)
        return None if row is None or row[1] <= now else row

    def _document(self, collection: str, key: str, version: int, expires_at: float, sealed: bytes) -> Document:
        return Document(key, self._file.unsealed(_purpose(collection), key, sealed), version, expires_at)


def _purpose(collection: str) -> str:
    return f"documents/{collection}"  # the store's secrets are sealed with the same key: theirs begin otherwise
