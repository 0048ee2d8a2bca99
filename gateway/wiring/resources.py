"""Process resources, which outlive a configuration: state, record, metrics, signing keys; and housekeeping."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.adapters.redis.opening import open_redis
from gateway.adapters.sealing import read_or_make_master_key
from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.audit.decision_log import FileRecorder
from gateway.config import Config
from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import Store, StoreDown
from gateway.identity.devices.enrolment import Enrolment
from gateway.observability import log
from gateway.observability.metrics import Metrics
from gateway.pipeline.assertion import Asserter

MASTER_KEY, STORE = "master.key", "gateway.sqlite"


class State(NamedTuple):
    """The state that is open; closing the store closes both."""

    store: Store
    documents: Documents


async def open_state(config: Config) -> State:
    """The state, in this machine's file or in a Redis. Raises StoreDown, ConfigError, OSError or ValueError."""
    config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = read_or_make_master_key(config.state / MASTER_KEY)
    if config.store.kind == "redis":
        return State(*await open_redis(config.store, key, config.state, on_grace=_log_grace))
    store = SqliteStore(config.state / STORE, key)
    return State(store, SqliteDocuments(store))


def _log_grace(is_used: bool) -> None:
    if is_used:
        log.get("store").warning("grace_begins")
    else:
        log.get("store").info("grace_ends")


@dataclass(frozen=True, slots=True)
class ProcessResources:
    """What lives as long as the worker process: state, record, metrics, signing keys.

    `name` is the worker's, for leases: what a reload puts in the place of another goes on with its lease at once.
    """

    store: Store
    documents: Documents
    metrics: Metrics
    asserter: Asserter
    records: dict[Path, FileRecorder] = field(default_factory=dict)
    name: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    async def open(cls, config: Config, metrics: Metrics) -> ProcessResources:
        """Open everything, or raise; then nothing is left open."""
        async with contextlib.AsyncExitStack() as undo:
            store, documents = await open_state(config)
            undo.push_async_callback(store.close)
            asserter = Asserter(store, f"https://{config.host}")
            await asserter.refresh()
            undo.pop_all()
        return cls(store, documents, metrics, asserter)

    def recorder(self, path: Path) -> FileRecorder:
        """The record in `path`, opened once and again after a rotation. Raises OSError."""
        if path in self.records:
            self.records[path].reopen()
        else:
            self.records[path] = FileRecorder(path)
        return self.records[path]

    async def close(self) -> None:
        """Close everything."""
        for record in self.records.values():
            record.close()
        await self.store.close()


def enrolment_of(config: Config, store: Store) -> Enrolment | None:
    """Who signs device certificates; None where no issuing key is configured."""
    if config.devices.ca is None or config.devices.issuing_key is None:
        return None
    return Enrolment(store, config.devices)


class Housekeeping:
    """The supervisor's periodic work: ping the store, renew the CRL before it goes stale."""

    def __init__(self, config: Config, store: Store) -> None:
        self._store = store
        self._enrolment = enrolment_of(config, store)
        self.is_healthy = True

    @classmethod
    async def open(cls, config: Config) -> Housekeeping:
        """Open the store and make the CRL current, or raise."""
        housekeeping = cls(config, (await open_state(config)).store)
        await housekeeping.refresh_crl()
        return housekeeping

    async def refresh_crl(self) -> None:
        """Renew the CRL when it is due, and ping the store."""
        try:
            await self._store.ping()
            if self._enrolment is not None:
                await self._enrolment.refresh_crl()
            self.is_healthy = True
        except StoreDown:
            self.is_healthy = False

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()
