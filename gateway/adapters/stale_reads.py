"""A bounded grace while the store is down, for operators who ask for it: `store: {on_down: read_only, grace_s: N}`.

Laws: an answer is used again only if it was given within the last `grace_s` seconds, was good (an active device, a
session that was not revoked, a document), and nothing has been heard or done since that could change it. Nothing is
written, created, listed or taken meanwhile, and a store that lost its data gets no grace. So a revocation that this
gateway could not hear of takes at most `grace_s` to work here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gateway.core.ports.documents import Document, Documents
from gateway.core.ports.stores import (
    Change,
    DeviceChange,
    DeviceRecord,
    IssuedCertificate,
    SessionRecord,
    Store,
    StoreDown,
    StoreLost,
)

_LIMIT = 20_000
type Key = tuple[str, ...]


class StaleReadCache:
    """The good answers of the last `grace_s` seconds. `clock` is monotonic, in seconds.

    `told` hears True when an answer is used again for the first time, and False when the store has answered since.
    """

    def __init__(
        self,
        grace_s: float,
        on_grace: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._told = on_grace
        self._answers: OrderedDict[Key, tuple[float, Any]] = OrderedDict()
        self._is_used = False

    def answered(self, key: Key, answer: object, *, is_good: bool) -> None:
        """The store answered: remember what is good, and forget what is not."""
        if self._is_used:
            self._is_used = False
            self._told(False)
        if not is_good:
            self.drop(key)
            return
        self._answers[key] = (self._clock() + self._grace_s, answer)
        self._answers.move_to_end(key)
        if len(self._answers) > _LIMIT:
            self._answers.popitem(last=False)

    def drop(self, key: Key) -> None:
        """Forget an answer."""
        self._answers.pop(key, None)

    def drop_kind(self, kind: str) -> None:
        """Forget every answer of a kind."""
        for key in [key for key in self._answers if key[0] == kind]:
            del self._answers[key]

    def clear(self) -> None:
        """Forget every answer."""
        self._answers.clear()

    def instead_of(self, error: StoreDown, key: Key) -> Any:
        """The answer that is remembered. Raises `error` when there is none that may be used."""
        if isinstance(error, StoreLost):
            self.clear()
        until, answer = self._answers.get(key, (0.0, None))
        if answer is None or until <= self._clock():
            raise error
        if not self._is_used:
            self._is_used = True
            self._told(True)
        return answer


class GraceStore:
    """Meets `gateway.core.ports.Store`: `store`, with a grace for `device` and `session`."""

    def __init__(self, store: Store, memory: StaleReadCache, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._memory = memory
        self._clock = clock

    async def device(self, device_id: str) -> DeviceRecord | None:
        """The record; within the grace an active one that was seen before."""
        key = ("device", device_id)
        try:
            record = await self._store.device(device_id)
        except StoreDown as error:
            found: DeviceRecord = self._memory.instead_of(error, key)
            return found
        self._memory.answered(key, record, is_good=record is not None and record.status == "active")
        return record

    async def session(self, session_id: str) -> SessionRecord | None:
        """The record; within the grace one that was seen before, as if just used: so nothing has to be written."""
        key = ("session", session_id)
        try:
            record = await self._store.session(session_id)
        except StoreDown as error:
            found: SessionRecord = self._memory.instead_of(error, key)
            return replace(found, last_seen_at=self._clock())
        self._memory.answered(key, record, is_good=record is not None and record.revoked_at is None)
        return record

    # ---- what ends something is forgotten here first ----

    async def change_device(self, device_id: str, change: DeviceChange) -> DeviceRecord | None:
        """See `DeviceStore`."""
        self._memory.drop(("device", device_id))
        return await self._store.change_device(device_id, change)

    async def revoke_session(self, session_id: str, now: float, why: str) -> bool:
        """See `SessionStore`."""
        self._memory.drop(("session", session_id))
        return await self._store.revoke_session(session_id, now, why)

    async def changes(self, after: int) -> Sequence[Change] | None:
        """See `Changes`. A document does not say whose it is, so the end of any session makes them all forgotten."""
        changes = await self._store.changes(after)
        kinds = {change.kind for change in changes or ()}
        if changes is None or kinds - {"session", "device"}:
            self._memory.clear()
            return changes
        if "session" in kinds:
            self._memory.drop_kind("document")
        for change in changes:
            self._memory.drop((change.kind, change.key))
        return changes

    # ---- everything else as it is ----

    async def devices(self) -> Sequence[DeviceRecord]:
        """See `DeviceStore`."""
        return await self._store.devices()

    async def add_device(self, record: DeviceRecord) -> bool:
        """See `DeviceStore`."""
        return await self._store.add_device(record)

    async def add_enrolment(self, token_sha256: str, device_id: str, expires_at: float) -> None:
        """See `DeviceStore`."""
        await self._store.add_enrolment(token_sha256, device_id, expires_at)

    async def take_enrolment(self, token_sha256: str, now: float) -> str | None:
        """See `DeviceStore`."""
        return await self._store.take_enrolment(token_sha256, now)

    async def add_certificate(self, certificate: IssuedCertificate) -> None:
        """See `DeviceStore`."""
        await self._store.add_certificate(certificate)

    async def revoked_certificates(self, now: float) -> Sequence[tuple[IssuedCertificate, float]]:
        """See `DeviceStore`."""
        return await self._store.revoked_certificates(now)

    async def sessions(self, subject: str | None = None) -> Sequence[SessionRecord]:
        """See `SessionStore`."""
        return await self._store.sessions(subject)

    async def put_session(self, record: SessionRecord) -> None:
        """See `SessionStore`."""
        await self._store.put_session(record)

    async def first_use(self, key: str, now: float, expires_at: float) -> bool:
        """See `ReplayStore`."""
        return await self._store.first_use(key, now, expires_at)

    async def secrets(self, purpose: str) -> Sequence[tuple[str, float, bytes]]:
        """See `SecretStore`."""
        return await self._store.secrets(purpose)

    async def put_secret(self, purpose: str, name: str, created_at: float, value: bytes) -> bool:
        """See `SecretStore`."""
        return await self._store.put_secret(purpose, name, created_at, value)

    async def drop_secret(self, purpose: str, name: str) -> None:
        """See `SecretStore`."""
        await self._store.drop_secret(purpose, name)

    async def announce(self, kind: str, key: str) -> None:
        """See `Changes`."""
        await self._store.announce(kind, key)

    async def latest(self) -> int:
        """See `Changes`."""
        return await self._store.latest()

    async def wait(self, after: int, timeout_s: float) -> None:
        """See `Changes`."""
        await self._store.wait(after, timeout_s)

    async def ping(self) -> None:
        """See `Store`."""
        await self._store.ping()

    async def close(self) -> None:
        """See `Store`."""
        self._memory.clear()
        await self._store.close()


class GraceDocuments:
    """Meets `gateway.core.ports.Documents`: `documents`, with a grace for `get`."""

    def __init__(self, documents: Documents, memory: StaleReadCache) -> None:
        self._documents = documents
        self._memory = memory

    async def get(self, collection: str, key: str, now: float) -> Document | None:
        """The document; within the grace one that was seen before and has not ended."""
        name = ("document", collection, key)
        try:
            document = await self._documents.get(collection, key, now)
        except StoreDown as error:
            remembered: Document = self._memory.instead_of(error, name)
            if remembered.expires_at <= now:
                raise
            return remembered
        self._memory.answered(name, document, is_good=document is not None)
        return document

    async def put(
        self, collection: str, key: str, value: bytes, expires_at: float, *, version: int, group: str = ""
    ) -> bool:
        """See `Documents`."""
        self._memory.drop(("document", collection, key))
        return await self._documents.put(collection, key, value, expires_at, version=version, group=group)

    async def overwrite(self, collection: str, key: str, value: bytes, expires_at: float, *, group: str = "") -> None:
        """See `Documents`."""
        self._memory.drop(("document", collection, key))
        await self._documents.overwrite(collection, key, value, expires_at, group=group)

    async def take(self, collection: str, key: str, now: float) -> Document | None:
        """See `Documents`."""
        self._memory.drop(("document", collection, key))
        return await self._documents.take(collection, key, now)

    async def delete(self, collection: str, key: str) -> bool:
        """See `Documents`."""
        self._memory.drop(("document", collection, key))
        return await self._documents.delete(collection, key)

    async def list(self, collection: str, group: str, now: float) -> Sequence[Document]:
        """See `Documents`."""
        return await self._documents.list(collection, group, now)
