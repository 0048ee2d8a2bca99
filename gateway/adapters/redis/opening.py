"""The state in a Redis that several gateways share, opened as the configuration says."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.adapters.redis.documents import RedisDocuments
from gateway.adapters.redis.server import RedisServer, Weakness
from gateway.adapters.redis.store import RedisStore
from gateway.adapters.stale_reads import GraceDocuments, GraceStore, StaleReadCache
from gateway.config import StateStore
from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import Store

ANCHOR = "redis-store"


class OpenRedis(NamedTuple):
    """A store that is open, and its documents; closing the store closes both."""

    store: Store
    documents: Documents


async def open_redis(
    settings: StateStore,
    master_key: bytes,
    state: Path,
    clock: Callable[[], float] = time.time,
    on_grace: Callable[[bool], None] = lambda _: None,
) -> OpenRedis:
    """Open the Redis of `settings`; `state` is this machine's own folder.

    `on_grace` hears True when a grace begins to be used, and False when the store answers again. Raises StoreDown when
    the store cannot be used, StoreLost when it is not what this machine knows; ConfigError, OSError or ValueError for
    secrets and certificates that cannot be read.
    """
    async with contextlib.AsyncExitStack() as undo:
        store = RedisStore(settings, master_key, state / ANCHOR, clock)
        undo.push_async_callback(store.close)
        await store.open()
        undo.pop_all()
    documents = RedisDocuments(store)
    if settings.on_down == "deny":
        return OpenRedis(store, documents)
    memory = StaleReadCache(settings.grace_s, on_grace)
    return OpenRedis(GraceStore(store, memory, clock), GraceDocuments(documents, memory))


async def inspect_redis(settings: StateStore, master_key: bytes, state: Path) -> Sequence[Weakness]:
    """What an operator should know of the Redis of `settings`; nothing is begun there or here. Raises as the above."""
    server = RedisServer(settings, master_key, state / ANCHOR)
    try:
        return await server.inspect()
    finally:
        await server.close()
