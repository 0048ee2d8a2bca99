"""Stage 4: is the device behind this connection in good standing, at this moment?

Law: the record is looked at on every request, whatever is cached, so a revoked device is out at its next request and
with it every certificate renewed from a stolen one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from gateway.core.ports.stores import DeviceStore
from gateway.core.reasons import Refusal
from gateway.core.request import Peer
from gateway.core.subject import Device
from gateway.identity.devices.certificates import ClaimedDevice, Crl, DeviceTrust, load_crl, parse_device_certificate

_KNOWN_LIMIT = 4096
_LOOK_AT_FILE_S = 1.0
_NO_LIST = Refusal("crl_stale", "no CRL")


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
        self._known: dict[bytes, tuple[ClaimedDevice, float, float]] = {}
        self._list = _RevocationList(crl, trust, crl_max_age_s, monotonic)

    async def verify(self, peer: Peer) -> Device | None | Refusal:
        """The device; None without a certificate; a Refusal for one that is not in good standing."""
        if not peer.chain:
            return None
        now = self._clock()
        claimed = self._examine(peer.chain[0], now)
        if isinstance(claimed, Refusal):
            return claimed
        crl = self._list.current(now)
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

    def _examine(self, der: bytes, now: float) -> ClaimedDevice | Refusal:
        """What never changes about a certificate is worked out once; its times are compared on every request."""
        known = self._known.get(der)
        if known is None:
            claimed = parse_device_certificate(der, self._trust_domain)
            if isinstance(claimed, Refusal):
                return claimed
            if now > claimed.not_after:
                return Refusal("device_expired", claimed.id)
            window = self._trust.verify(claimed.certificate, now)
            if isinstance(window, Refusal):
                return window
            if len(self._known) >= _KNOWN_LIMIT:
                del self._known[next(iter(self._known))]
            known = self._known[der] = (claimed, *window)
        claimed, not_before, not_after = known
        if now > not_after:
            return Refusal("device_expired", claimed.id)
        return claimed if now >= not_before else Refusal("certificate_malformed", "not valid yet")


class _RevocationList:
    """The CRL file, read again when it changes, and refused when it goes stale or back in time."""

    def __init__(self, path: Path, trust: DeviceTrust, max_age_s: float, monotonic: Callable[[], float]) -> None:
        self._path = path
        self._trust = trust
        self._max_age_s = max_age_s
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self._file: tuple[int, int, int] | None = None
        self._crl: Crl | Refusal = _NO_LIST
        self._number = -1

    def current(self, now: float) -> Crl | Refusal:
        tick = self._monotonic()
        if tick - self._looked_at >= _LOOK_AT_FILE_S:
            self._looked_at = tick
            self._look(now)
        crl = self._crl
        if isinstance(crl, Refusal) or crl.is_fresh(now, self._max_age_s):
            return crl
        return Refusal("crl_stale", "the CRL is out of date")

    def _look(self, now: float) -> None:
        try:
            status = self._path.stat()
            file = (status.st_mtime_ns, status.st_size, status.st_ino)
            if file == self._file:
                return
            crl = load_crl(self._path.read_bytes(), self._trust.issuing, now, self._max_age_s)
        except OSError as error:
            self._file, self._crl = None, Refusal("crl_stale", f"the CRL file: {error.strerror}")
            return
        if isinstance(crl, Crl):
            if crl.number < self._number:
                crl = Refusal("crl_stale", "the CRL is older than the one before")
            else:
                self._number = crl.number
        # A refused list is read again at the next look: only time may be missing to it.
        self._file, self._crl = (file if isinstance(crl, Crl) else None), crl
