"""What outlives a configuration: state, record, metrics, signing keys; and what the supervisor keeps current."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gateway.adapters.documents import SqliteDocuments
from gateway.adapters.sealing import read_or_make_master_key
from gateway.adapters.sqlite import SqliteStore
from gateway.config import Config
from gateway.core.ports import Documents, Store, StoreDown
from gateway.identity.assertion import Asserter
from gateway.identity.enrolment import Enrolment
from gateway.oversight.audit import FileRecorder
from gateway.oversight.metrics import Metrics

MASTER_KEY, STORE = "master.key", "gateway.sqlite"


def open_store(config: Config) -> SqliteStore:
    """The state store. Raises StoreDown, OSError or ValueError."""
    config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SqliteStore(config.state / STORE, read_or_make_master_key(config.state / MASTER_KEY))


@dataclass(frozen=True, slots=True)
class Shared:
    """What lives as long as the worker process: state, record, metrics, signing keys."""

    store: Store
    documents: Documents
    metrics: Metrics
    asserter: Asserter
    records: dict[Path, FileRecorder] = field(default_factory=dict)

    @classmethod
    async def open(cls, config: Config, metrics: Metrics) -> Shared:
        """Open everything, or raise."""
        store = open_store(config)
        asserter = Asserter(store, f"https://{config.host}")
        await asserter.refresh()
        return cls(store, SqliteDocuments(store), metrics, asserter)

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


class Keeper:
    """What the supervisor looks after: the store answers, the CRL is made anew before it goes stale."""

    def __init__(self, config: Config, store: Store) -> None:
        self._store = store
        self._enrolment = enrolment_of(config, store)
        self.is_healthy = True

    @classmethod
    async def open(cls, config: Config) -> Keeper:
        """Open the store and make the CRL current, or raise."""
        keeper = cls(config, open_store(config))
        await keeper.refresh_crl()
        return keeper

    async def refresh_crl(self) -> None:
        """Make a new CRL when it is due, and look whether the store answers."""
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
