"""The state in a Redis that several gateways share, opened as the configuration says."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.adapters.grace import GraceDocuments, GraceStore, Memory
from gateway.adapters.redis_documents import RedisDocuments
from gateway.adapters.redis_store import RedisStore
from gateway.config import StateStore
from gateway.core.ports import Documents, Store

ANCHOR = "redis-store"


class OpenRedis(NamedTuple):
    """A store that is open, and its documents; closing the store closes both. `memory` is the grace's, if there is."""

    store: Store
    documents: Documents
    memory: Memory | None


async def open_redis(
    settings: StateStore, master_key: bytes, state: Path, clock: Callable[[], float] = time.time
) -> OpenRedis:
    """Open the Redis of `settings`; `state` is this machine's own folder.

    Raises StoreDown when it cannot be used, StoreLost when it is not what this machine knows; ConfigError, OSError or
    ValueError for secrets and certificates that cannot be read.
    """
    async with contextlib.AsyncExitStack() as undo:
        store = RedisStore(settings, master_key, state / ANCHOR, clock)
        undo.push_async_callback(store.close)
        await store.open()
        undo.pop_all()
    documents = RedisDocuments(store)
    if settings.on_down == "deny":
        return OpenRedis(store, documents, None)
    memory = Memory(settings.grace_s)
    return OpenRedis(GraceStore(store, memory, clock), GraceDocuments(documents, memory), memory)
