"""The file of certificate revocation lists: read again when it changes, refused when it goes stale or back in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509

from gateway.core.reasons import Refusal
from gateway.identity.devices.revocation import Crl, read_crls

_LOOK_AT_FILE_S = 1.0


class RevocationFile:
    """One file with the lists of the `issuing` CAs. `monotonic` paces looks at it."""

    def __init__(
        self, path: Path, issuing: Sequence[x509.Certificate], max_age_s: float, monotonic: Callable[[], float]
    ) -> None:
        self._path = path
        self._issuing = issuing
        self._max_age_s = max_age_s
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self._file: tuple[int, int, int] | None = None
        self._lists: dict[str, Crl | Refusal] | Refusal = Refusal("crl_stale", "no CRL")
        self._numbers: dict[str, int] = {}

    def current(self, issuer: str, now: float) -> Crl | Refusal:
        """The list of one issuer (`issuer_id`), fresh; `crl_stale` without it."""
        tick = self._monotonic()
        if tick - self._looked_at >= _LOOK_AT_FILE_S:
            self._looked_at = tick
            self._look()
        if isinstance(self._lists, Refusal):
            return self._lists
        crl = self._lists.get(issuer)
        if crl is None:
            return Refusal("crl_stale", "no CRL of this certificate's issuer")
        if isinstance(crl, Refusal):
            return crl
        return crl.refusal(now, self._max_age_s) or crl

    def _look(self) -> None:
        try:
            status = self._path.stat()
            file = (status.st_mtime_ns, status.st_size, status.st_ino)
            if file == self._file:
                return
            lists = read_crls(self._path.read_bytes(), self._issuing)
        except OSError as error:
            self._file, self._lists = None, Refusal("crl_stale", f"the CRL file: {error.strerror}")
            return
        # A refused file is read again at the next look: it may be half written.
        self._file = None if isinstance(lists, Refusal) else file
        self._lists = lists if isinstance(lists, Refusal) else {name: self._newer(name, lists[name]) for name in lists}

    def _newer(self, issuer: str, crl: Crl) -> Crl | Refusal:
        if crl.number < self._numbers.get(issuer, -1):
            return Refusal("crl_stale", "the CRL is older than the one before")
        self._numbers[issuer] = crl.number
        return crl
