"""Small values with an end, in the Redis of the store.

Laws: a value is sealed together with its key under its collection, so one that is moved does not open; collections,
keys and groups stand in Redis as keyed digests alone. A version is given once in the life of the store.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from gateway.adapters.redis import scripts as lua
from gateway.adapters.redis.server import RedisServer
from gateway.core.ports.documents import Document
from gateway.core.ports.stores import StoreDown

_HEAD = struct.Struct("<ddd16s")  # version, first version, end, group
_LENGTH = struct.Struct("<I")
_ANY_VERSION = -1


class RedisDocuments:
    """Meets `gateway.core.ports.Documents`. It lives as long as `server`, a store that is open, and uses its clock."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    async def get(self, collection: str, key: str, now: float) -> Document | None:
        """The document, None when it is not there or has ended."""
        digest = self._server.hidden("document", collection, key)
        return self._document(collection, digest, await self._server.read("GET", lua.DOCUMENT + digest), now)

    async def put(
        self, collection: str, key: str, value: bytes, expires_at: float, *, version: int, group: str = ""
    ) -> bool:
        """Write only over `version` (0: nothing is there); whether it was written."""
        return await self._write(collection, key, value, expires_at, version, group)

    async def overwrite(self, collection: str, key: str, value: bytes, expires_at: float, *, group: str = "") -> None:
        """Write whatever is there."""
        await self._write(collection, key, value, expires_at, _ANY_VERSION, group)

    async def _write(
        self, collection: str, key: str, value: bytes, expires_at: float, version: int, group: str
    ) -> bool:
        server = self._server
        digest = server.hidden("document", collection, key)
        kin = server.hidden("group", collection, group) if group else b""
        name = key.encode("utf-8", "surrogatepass")
        sealed = server.seal.seal(_purpose(collection), digest.hex(), _LENGTH.pack(len(name)) + name + value)
        keys = [lua.DOCUMENT + digest, lua.GROUP + (kin or digest)]
        times = (repr(server.clock()), lua.MARGIN_S)
        reply = await server.run(lua.PUT_DOCUMENT, keys, digest, kin, repr(expires_at), sealed, version, *times)
        return bool(reply == 1)

    async def take(self, collection: str, key: str, now: float) -> Document | None:
        """Read and delete in one step: of several callers one gets it."""
        digest = self._server.hidden("document", collection, key)
        value = await self._server.run(lua.TAKE_DOCUMENT, [lua.DOCUMENT + digest], digest)
        return self._document(collection, digest, value, now)

    async def delete(self, collection: str, key: str) -> bool:
        """Delete; whether it was there."""
        return await self.take(collection, key, self._server.clock()) is not None

    async def list(self, collection: str, group: str, now: float) -> Sequence[Document]:
        """Every document of a group that has not ended, oldest first; no group has no documents."""
        if not group:
            return []
        kin = self._server.hidden("group", collection, group)
        found = await self._server.look(lua.LIST_DOCUMENTS, [lua.GROUP + kin])
        pairs = zip(found[::2], found[1::2], strict=True)
        documents = (self._document(collection, digest, value, now) for digest, value in pairs)
        return [document for document in documents if document is not None]

    def _document(self, collection: str, digest: bytes, value: bytes | None, now: float) -> Document | None:
        if value is None:
            return None
        try:
            version, _, expires_at, _ = _HEAD.unpack_from(value)
            if expires_at <= now:
                return None
            opened = self._server.unsealed(_purpose(collection), digest.hex(), value[_HEAD.size :])
            start = _LENGTH.size + _LENGTH.unpack_from(opened)[0]
        except struct.error:
            raise StoreDown("redis: a document that nobody can read") from None
        key = opened[_LENGTH.size : start].decode("utf-8", "surrogatepass")
        return Document(key, opened[start:], int(version), expires_at)


def _purpose(collection: str) -> str:
    return f"documents/{collection}"  # the store's secrets are sealed with the same key: theirs begin otherwise
