"""Optimistic concurrency (compare-and-set) over a collection of documents, with its codec. Written here, once.

Law: what was read is written over the version that was read, or not at all. Everything raises StoreDown when the store
is down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.core.ports.documents import Documents

ATTEMPTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec[T]:
    """How a value stands in a document. `decode(encode(value))` is `value`."""

    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]


@dataclass(frozen=True, slots=True)
class Entry[T]:
    """A document as it was read. Without one `value` is None and `version` is 0. Times are seconds since the epoch."""

    key: str
    value: T | None
    version: int
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection[T]:
    """The documents of one collection as values of one type. `clock` gives seconds since the epoch."""

    documents: Documents
    name: str
    codec: Codec[T]
    clock: Callable[[], float]

    async def read(self, key: str) -> Entry[T]:
        """The document under `key` as it is now, to be written over by `replace`."""
        document = await self.documents.get(self.name, key, self.clock())
        if document is None:
            return Entry(key, None, 0)
        return Entry(key, self.codec.decode(document.value), document.version, document.expires_at)

    async def get(self, key: str) -> T | None:
        """The value under `key`, None when it is not there or has ended."""
        return (await self.read(key)).value

    async def add(self, key: str, value: T, expires_at: float, *, group: str = "") -> bool:
        """Write where nothing is; False when there is something."""
        return await self.replace(Entry(key, None, 0), value, expires_at, group=group)

    async def replace(self, entry: Entry[T], value: T, expires_at: float, *, group: str = "") -> bool:
        """Write over exactly what was read; False when somebody else was faster."""
        content = self.codec.encode(value)
        return await self.documents.put(self.name, entry.key, content, expires_at, version=entry.version, group=group)

    def attempts(self, key: str, limit: int = ATTEMPTS) -> Attempts[T]:
        """For `async for`: read, `replace` in the body, and again while others are faster, `limit` times at most.

        The body leaves the loop when `replace` wrote. Past the loop there was too much at the same time.
        """
        return Attempts(self, key, limit)

    async def take(self, key: str) -> T | None:
        """Read and delete in one step: of several callers one gets it."""
        document = await self.documents.take(self.name, key, self.clock())
        return None if document is None else self.codec.decode(document.value)

    async def delete(self, key: str) -> bool:
        """Delete; whether it was there."""
        return await self.documents.delete(self.name, key)

    async def list(self, group: str) -> Sequence[Entry[T]]:
        """Every document of a group, oldest first."""
        documents = await self.documents.list(self.name, group, self.clock())
        return [Entry(item.key, self.codec.decode(item.value), item.version, item.expires_at) for item in documents]


@dataclass(slots=True)
class Attempts[T]:
    """The reads of one compare-and-set loop; meets AsyncIterator."""

    collection: Collection[T]
    key: str
    left: int

    def __aiter__(self) -> Attempts[T]:
        return self

    async def __anext__(self) -> Entry[T]:
        if self.left <= 0:
            raise StopAsyncIteration
        self.left -= 1
        return await self.collection.read(self.key)
