"""Bringing devices in, keeping them in, and putting them out.

Law: the device is revoked, not the serial. A revocation marks the record, which stage 4 reads on every request, and
then makes a CRL of every unexpired certificate that device was ever given.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from gateway.config import Devices as DevicesConfig
from gateway.core.ports.pipeline import Enrolled
from gateway.core.ports.stores import DeviceRecord, DeviceStore, IssuedCertificate, ReplayStore
from gateway.core.reasons import Refusal
from gateway.core.subject import Device
from gateway.identity.devices.ca import DeviceKey, issue_crl, issue_device, pem_of, public_key_sha256, serial_hex
from gateway.identity.devices.ca_files import load_authority, write_file
from gateway.identity.devices.certificates import DeviceTrust, load_crl, read_crl, read_csr

_TOKEN = re.compile(r"gwe_[A-Za-z0-9_-]{43}\Z")
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,200}\Z")
_KEY_REMEMBERED_S = 400 * 86_400
_LOCK_RETRY_S = 0.02
_LOCK_WAIT_S = 10.0


class EnrolmentStore(DeviceStore, ReplayStore, Protocol):
    """What enrolment needs of the store."""


class Enrolment:
    """The registration authority of the device PKI; needs `devices.ca` and `devices.issuing_key`.

    Raises OSError or ValueError when the CA files cannot be used. Every method raises StoreDown when the store is.
    """

    def __init__(self, store: EnrolmentStore, devices: DevicesConfig, clock: Callable[[], float] = time.time) -> None:
        if devices.ca is None or devices.issuing_key is None or devices.crl_file is None:
            raise ValueError("enrolment needs devices.ca and devices.issuing_key")
        self._store = store
        self._config = devices
        self._clock = clock
        self._trust = DeviceTrust(devices.ca.read_bytes())
        self._authority = load_authority(devices.ca, devices.issuing_key)
        if self._authority.certificate not in self._trust.issuing:
            raise ValueError(f"{devices.issuing_key} is not the key of a device-issuing CA")
        self._crl = devices.crl_file

    async def create_device(self, name: str, owner: str, department: str) -> tuple[DeviceRecord, str]:
        """A pending device and its one-time token, which is shown once. Raises ValueError for unprintable text."""
        for text in (name, owner, department or "-"):
            if not _TEXT.match(text):
                raise ValueError("name, owner and department are 1 to 200 printable characters")
        record = DeviceRecord(str(uuid.uuid4()), name, owner, department, "pending", self._clock())
        await self._store.add_device(record)
        return record, await self._token(record.id)

    async def new_token(self, device_id: str) -> str | Refusal:
        """Another one-time token, for a device whose token or certificate has expired."""
        record = await self._store.device(device_id)
        if record is None:
            return Refusal("device_unknown", device_id)
        return await self._token(device_id) if record.status != "revoked" else Refusal("device_revoked", device_id)

    async def enrol(self, token: str, csr_pem: str) -> Enrolled | Refusal:
        """The first certificate: `csr_malformed`, `enrolment_invalid`, `key_reused` or `device_revoked` otherwise.

        A request that cannot be read leaves the token alone; from then on it is used up, whatever follows.
        """
        key = read_csr(csr_pem)
        if isinstance(key, Refusal):
            return key
        if not _TOKEN.match(token):
            return Refusal("enrolment_invalid", "not an enrolment token")
        device_id = await self._store.take_enrolment(_sha256(token), self._clock())
        if device_id is None:
            return Refusal("enrolment_invalid", "unknown, used or expired")
        now = self._clock()
        if await self._store.change_device(device_id, lambda record: _activated(record, now)) is None:
            return Refusal("enrolment_invalid", "no such device")
        return await self._issue(device_id, key)

    async def renew(self, device: Device, csr_pem: str) -> Enrolled | Refusal:
        """The next certificate, for a device that stage 4 verified on this connection and that brings a new key."""
        key = read_csr(csr_pem)
        return key if isinstance(key, Refusal) else await self._issue(device.id, key)

    async def revoke(self, device_id: str, why: str) -> bool:
        """Put a device out for good; False for an unknown id. Raises OSError when the CRL cannot be written."""
        now = self._clock()
        if await self._store.change_device(device_id, lambda record: record.revoke(now, why)) is None:
            return False
        await self._publish()
        return True

    async def refresh_crl(self) -> bool:
        """Make a new CRL when the present one is past half its life, or unusable; whether one was made.

        Call it often (once a minute), in any number of processes.
        """
        now = self._clock()
        try:
            present = load_crl(self._crl.read_bytes(), self._trust.issuing, now, self._config.crl_max_age_s)
        except FileNotFoundError:
            present = Refusal("crl_stale", "no CRL")
        if not isinstance(present, Refusal):
            life_s = min(present.next_update - present.this_update, self._config.crl_max_age_s)
            if now < present.this_update + life_s / 2:
                return False
        await self._publish()
        return True

    async def _issue(self, device_id: str, key: DeviceKey) -> Enrolled | Refusal:
        now = self._clock()
        known_key = f"gateway/v1/device-key/{public_key_sha256(key)}"
        if not await self._store.first_use(known_key, now, now + _KEY_REMEMBERED_S):
            return Refusal("key_reused", device_id)
        certificate = issue_device(
            self._authority,
            key,
            device_id,
            self._config.trust_domain,
            now=now,
            life_s=self._config.certificate_life_s,
        )
        await self._store.add_certificate(
            IssuedCertificate(
                serial=serial_hex(certificate.serial_number),
                device_id=device_id,
                not_before=certificate.not_valid_before_utc.timestamp(),
                not_after=certificate.not_valid_after_utc.timestamp(),
            )
        )
        # Looked at last: a revocation in the meantime must not be answered with a certificate.
        record = await self._store.device(device_id)
        if record is None or record.status != "active":
            return Refusal("device_revoked", device_id)
        return Enrolled(
            device_id=device_id,
            certificate_pem=pem_of(certificate).decode("ascii"),
            chain_pem=pem_of(self._authority.certificate).decode("ascii"),
        )

    async def _token(self, device_id: str) -> str:
        token = f"gwe_{secrets.token_urlsafe(32)}"
        await self._store.add_enrolment(_sha256(token), device_id, self._clock() + self._config.enrolment_life_s)
        return token

    async def _publish(self) -> None:
        """Write the CRL of this moment. One process at a time, or an older list could replace a newer one."""
        async with _locked(self._crl.with_name(f"{self._crl.name}.lock")):
            now = self._clock()
            revoked = await self._store.revoked_certificates(now)
            # Milliseconds grow even when a file was lost; the number in the file wins when a clock was set back.
            number = max(int(now * 1000), self._number() + 1)
            pem = issue_crl(
                self._authority,
                ((certificate.serial, revoked_at) for certificate, revoked_at in revoked),
                number=number,
                now=now,
                life_s=self._config.crl_max_age_s,
            )
            write_file(self._crl, pem, 0o644)

    def _number(self) -> int:
        try:
            present = read_crl(self._crl.read_bytes(), self._trust.issuing)
        except FileNotFoundError:
            return 0
        return 0 if isinstance(present, Refusal) else present.number


def _activated(record: DeviceRecord, now: float) -> DeviceRecord | None:
    return replace(record, status="active", enrolled_at=now) if record.status == "pending" else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock that other processes respect and that dies with this one. Raises TimeoutError (an OSError)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(_LOCK_WAIT_S):
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_LOCK_RETRY_S)
        yield
    finally:
        os.close(descriptor)
