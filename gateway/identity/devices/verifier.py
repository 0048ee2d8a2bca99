"""Stage 4: is the device behind this connection in good standing, at this moment?

Law: the record is looked at on every request, whatever is cached, so a revoked device is out at its next request and
with it every certificate renewed from a stolen one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.core.ports.stores import DeviceStore
from gateway.core.reasons import Refusal
from gateway.core.request import Peer
from gateway.core.subject import Device
from gateway.identity.devices.certificates import ClaimedDevice, DeviceTrust, VerifiedPath, parse_device_certificate
from gateway.identity.devices.revocation import issuer_id
from gateway.identity.devices.revocation_file import RevocationFile

_KNOWN_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class _Examined:
    """A certificate of the profile with its verified path; `issuer` as `issuer_id` has it."""

    claimed: ClaimedDevice
    path: VerifiedPath
    issuer: str


class Devices:
    """Judges peers by certificate, CRL and record. `clock` is the time of day, `monotonic` paces looks at the CRL file.

    Refusals: `certificate_malformed`, `device_expired`, `crl_stale`, `device_unknown`, `device_revoked`,
    `certificate_revoked`. Raises StoreDown when the record cannot be read.
    """

    def __init__(
        self,
        store: DeviceStore,
        trust: DeviceTrust,
        trust_domain: str,
        *,
        crl: Path,
        crl_max_age_s: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._trust = trust
        self._trust_domain = trust_domain
        self._clock = clock
        self._known: dict[bytes, _Examined] = {}
        self._lists = RevocationFile(crl, trust.issuing, crl_max_age_s, monotonic)

    async def verify(self, peer: Peer) -> Device | None | Refusal:
        """The device; None without a certificate; a Refusal for one that is not in good standing."""
        if not peer.chain:
            return None
        now = self._clock()
        examined = self._examine(peer.chain[0], now)
        if isinstance(examined, Refusal):
            return examined
        claimed = examined.claimed
        crl = self._lists.current(examined.issuer, now)
        if isinstance(crl, Refusal):
            return crl
        record = await self._store.device(claimed.id)
        if record is None:
            return Refusal("device_unknown", claimed.id)
        if record.status != "active":
            return Refusal("device_revoked", f"{claimed.id} is {record.status}")
        if claimed.serial in crl.serials:
            return Refusal("certificate_revoked", claimed.serial)
        return Device(
            id=record.id,
            cert_sha256=claimed.cert_sha256,
            owner=record.owner,
            department=record.department,
            posture=record.posture,
        )

    def _examine(self, der: bytes, now: float) -> _Examined | Refusal:
        """What never changes about a certificate is worked out once; its times are compared on every request."""
        known = self._known.get(der)
        if known is None:
            claimed = parse_device_certificate(der, self._trust_domain)
            if isinstance(claimed, Refusal):
                return claimed
            if now > claimed.not_after:
                return Refusal("device_expired", claimed.id)
            path = self._trust.verify(claimed.certificate, now)
            if isinstance(path, Refusal):
                return path
            if len(self._known) >= _KNOWN_LIMIT:
                del self._known[next(iter(self._known))]
            known = self._known[der] = _Examined(claimed, path, issuer_id(path.issuing))
        if now > known.path.not_after:
            return Refusal("device_expired", known.claimed.id)
        return known if now >= known.path.not_before else Refusal("certificate_malformed", "not valid yet")
