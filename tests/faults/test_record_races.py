"""Two writers of one record at the same moment, each in a process of its own: both count, on SQLite and on Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.adapters.redis.documents import RedisDocuments
from gateway.adapters.redis.store import RedisStore
from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.config import StateStore
from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import DeviceRecord, Store
from gateway.core.reasons import Refusal
from gateway.core.request import Peer
from gateway.core.subject import Device
from gateway.identity.devices.ca import issue_device, make_issuing, make_root
from gateway.identity.devices.posture import PostureReports, signed_report
from gateway.identity.ssf.events import COMPLIANCE, EventSubject, SecurityEvent
from gateway.identity.ssf.receiver import RISKS, SignalReceiver
from tests.support.clock import NOW
from tests.support.redis_server import needs_redis, running

DEVICE, ROUNDS = "0b0e5b7e-3d0c-4f0e-9d6f-0a4f6f0d3c11", 40
ISSUER = "https://id.example.com"
type Handles = tuple[tuple[Store, Documents], tuple[Store, Documents]]


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
async def handles(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Handles]:
    """The same state twice, as two workers have it open."""
    if request.param == "sqlite":
        files = [SqliteStore(tmp_path / "gateway.sqlite", bytes(32)) for _ in range(2)]
        yield (files[0], SqliteDocuments(files[0])), (files[1], SqliteDocuments(files[1]))
        for file in files:
            await file.close()
        return
    with running(tmp_path / "redis") as server:
        settings = StateStore(kind="redis", address=server.address, timeout_ms=5_000)
        stores = [RedisStore(settings, bytes(32), tmp_path / name) for name in ("one", "two")]
        for store in stores:
            await store.open()
        yield (stores[0], RedisDocuments(stores[0])), (stores[1], RedisDocuments(stores[1]))
        for store in stores:
            await store.close()


def reporter(store: Store) -> Callable[[], Awaitable[Any]]:
    """A device that reports its posture to a worker."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuing = make_issuing(make_root("Root", NOW), "Issuing", "device", NOW)
    leaf = issue_device(issuing, key.public_key(), DEVICE, "gateway.internal", now=NOW, life_s=86_400)
    peer = Peer("192.0.2.1", 1, (leaf.public_bytes(Encoding.DER),), "x" * 43)
    reports = PostureReports(store, store, lambda: NOW)

    async def report() -> Any:
        token = signed_report({"disk_encrypted": True}, key, secrets.token_urlsafe(16), NOW)
        return await reports.take(token, Device(DEVICE, "x" * 43), peer)

    return report


def receiver(name: str, store: Store, documents: Documents) -> SignalReceiver:
    """A worker's receiver of one source."""
    source: Any = SimpleNamespace(name=name)
    nothing: Any = SimpleNamespace()
    return SignalReceiver(source, nothing, nothing, store, documents, store, lambda: NOW)


async def test_a_report_of_the_device_never_undoes_what_the_device_manager_says_of_it(handles: Handles) -> None:
    (store, _), (other, documents) = handles
    await store.add_device(DeviceRecord(DEVICE, "Laptop", "ada", "", "active", NOW, posture={"compliant": True}))
    report, manager = reporter(store), receiver("mdm", other, documents)
    for number in range(ROUNDS):
        is_compliant = bool(number % 2)
        status = "compliant" if is_compliant else "not-compliant"
        event = SecurityEvent(COMPLIANCE, EventSubject(device=DEVICE), NOW + number, {"current_status": status})
        outcomes = await asyncio.gather(report(), manager.act(event), report())
        assert not any(isinstance(outcome, Refusal) for outcome in outcomes)
        record = await store.device(DEVICE)
        assert record is not None
        assert record.posture == {
            "disk_encrypted": True,
            "reported_at": NOW,
            "compliant": is_compliant,
            "compliance_by": "mdm",
            "compliance_at": NOW + number,
        }, number


async def test_a_report_of_the_device_never_undoes_its_revocation(handles: Handles) -> None:
    (store, _), (other, _) = handles
    await store.add_device(DeviceRecord(DEVICE, "Laptop", "ada", "", "active", NOW))
    report = reporter(store)
    await asyncio.gather(
        *(report() for _ in range(10)),
        other.change_device(DEVICE, lambda record: record.revoke(NOW, "stolen")),
        *(report() for _ in range(10)),
    )
    record = await other.device(DEVICE)
    assert record is not None
    assert (record.status, record.revoked_why) == ("revoked", "stolen")
    assert record.posture["disk_encrypted"] is True


async def test_two_sources_that_speak_of_one_person_at_once_are_both_heard(handles: Handles) -> None:
    (store, documents), (other, others_documents) = handles
    sources = receiver("mdm", store, documents), receiver("siem", other, others_documents)
    for number in range(ROUNDS):
        subject = f"person-{number}"
        await asyncio.gather(*(source._at_risk(ISSUER, subject, "high", NOW) for source in sources))
        document = await documents.get(RISKS, f"{len(ISSUER)}|{ISSUER}|{subject}", NOW)
        assert document is not None
        assert b'"mdm"' in document.value
        assert b'"siem"' in document.value
