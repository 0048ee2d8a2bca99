"""State in this process, for measurements in which the disk is not what is measured."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from gateway.core.ports.documents import Document
from gateway.core.ports.stores import SessionRecord


class Memory:
    """Meets `Documents` and `SessionStore`, for one process. `is_frozen`: writes are acknowledged and forgotten."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], tuple[Document, str]] = {}
        self._versions = itertools.count(1)
        self.records: dict[str, SessionRecord] = {}
        self.is_frozen = False

    async def get(self, collection: str, key: str, now: float) -> Document | None:
        """See `Documents`."""
        found = self.kept.get((collection, key))
        return found[0] if found is not None and found[0].expires_at > now else None

    async def put(
        self, collection: str, key: str, value: bytes, expires_at: float, *, version: int, group: str = ""
    ) -> bool:
        """See `Documents`."""
        if self.is_frozen:
            return True
        present = self.kept.get((collection, key))
        if version != (0 if present is None else present[0].version):
            return False
        await self.overwrite(collection, key, value, expires_at, group=group)
        return True

    async def overwrite(self, collection: str, key: str, value: bytes, expires_at: float, *, group: str = "") -> None:
        """See `Documents`."""
        if not self.is_frozen:
            self.kept[collection, key] = Document(key, value, next(self._versions), expires_at), group

    async def take(self, collection: str, key: str, now: float) -> Document | None:
        """See `Documents`."""
        found = await self.get(collection, key, now)
        self.kept.pop((collection, key), None)
        return found

    async def delete(self, collection: str, key: str) -> bool:
        """See `Documents`."""
        return self.kept.pop((collection, key), None) is not None

    async def list(self, collection: str, group: str, now: float) -> Sequence[Document]:
        """See `Documents`."""
        found = [item for (name, _), item in self.kept.items() if name == collection]
        return [document for document, of in found if of == group and document.expires_at > now]

    def drop(self, collection: str) -> None:
        """Forget a whole collection."""
        self.kept = {key: item for key, item in self.kept.items() if key[0] != collection}

    # ---- sessions ----

    async def session(self, session_id: str) -> SessionRecord | None:
        """See `SessionStore`."""
        return self.records.get(session_id)

    async def sessions(self, subject: str | None = None) -> Sequence[SessionRecord]:
        """See `SessionStore`."""
        return [record for record in self.records.values() if subject in {None, record.subject}]

    async def put_session(self, record: SessionRecord) -> None:
        """See `SessionStore`."""
        self.records[record.id] = record

    async def revoke_session(self, session_id: str, now: float, why: str) -> bool:
        """See `SessionStore`."""
        if session_id not in self.records:
            return False
        self.records[session_id] = replace(self.records[session_id], revoked_at=now, revoked_why=why)
        return True
