"""Where an address is, from MaxMind DB files: country, AS, position. The only importer of maxminddb.

Laws: `look` never raises and never waits. A file is copied before it is mapped, so that one which is overwritten or cut
short in place cannot take the process down with it. A new file that is not whole leaves the old one in use, and
`report` says so; one that never was whole makes every answer `flaw="broken"`, and no file at all `flaw="absent"`.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import maxminddb

from gateway.core.ports.pipeline import Network
from gateway.core.request import IpNetwork

_CHECK_S = 2.0
_CACHED = 8_192
_LIMIT_BYTES = 2 << 30
_COUNTRY = re.compile(r"[A-Z]{2}\Z")
_NO_COUNTRY = frozenset({"XX", "ZZ"})
_AS_NUMBER = re.compile(r"(?:AS)?([0-9]{1,10})\Z")
_MOST_ASN, _MOST_KM, _NAME = 0xFFFF_FFFF, 20_100.0, 128
# What the reader raises for data that make no sense; RecursionError is a RuntimeError as well.
_BROKEN = (RuntimeError, OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError)

type Report = Callable[[Path, str], None]
type _Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Source:
    """One file: the reader of its last good version (None: there was none), and the version last looked at."""

    path: Path
    reader: Any = None
    stamp: _Stamp | None = None


class GeoNetworks:
    """Meets `core.ports.Networks`.

    `databases` are files that count together: of several that know the same thing the first one does. `report` is told
    of every file that could not be read, and of every new version that could, from whatever thread finds it out.
    """

    def __init__(
        self,
        databases: Sequence[Path],
        *,
        company: Sequence[IpNetwork] = (),
        vpn: Sequence[IpNetwork] = (),
        report: Report = lambda path, what: None,  # noqa: ARG005  (nobody listens)
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._company, self._vpn = tuple(company), tuple(vpn)
        self._report = report
        self._monotonic = monotonic
        self._loading = threading.Lock()
        self._due = monotonic() + _CHECK_S
        self._use([self._load(_Source(path)) for path in databases])

    def lookup(self, ip: str) -> Network:
        """What is known of an address, IPv4-mapped IPv6 read as IPv4. Never raises, and costs microseconds."""
        now = self._monotonic()
        if now >= self._due:
            self._due = now + _CHECK_S
            if any(_stamp(source.path) != source.stamp for source in self._sources):
                threading.Thread(target=self.refresh, name="geo", daemon=True).start()
        return self._cached(ip)

    @property
    def flaw(self) -> str:
        """Nothing ("") while every database is in use, else "absent" or "broken"."""
        if not self._sources:
            return "absent"
        return "" if all(source.reader is not None for source in self._sources) else "broken"

    def refresh(self) -> None:
        """Read what has changed, then put it in use as a whole."""
        if not self._loading.acquire(blocking=False):
            return
        try:
            self._use([self._load(source) for source in self._sources])
        finally:
            self._loading.release()

    def _use(self, sources: Sequence[_Source]) -> None:
        self._sources = tuple(sources)
        readers = [source.reader for source in sources if source.reader is not None]
        flaw = self.flaw
        # Without a way back to this object: the readers are large, and go the moment they are not used any more.
        self._cached = lru_cache(_CACHED)(partial(_find, readers, flaw, self._company, self._vpn))

    def _load(self, source: _Source) -> _Source:
        stamp = _stamp(source.path)
        if stamp == source.stamp and (stamp is not None or source.reader is not None):
            return source
        consequence = "the old one stays in use" if source.reader is not None else "nothing is known of addresses"
        if stamp is None:
            self._report(source.path, f"there is no such file; {consequence}")
            return _Source(source.path, source.reader, None)
        try:
            reader = _open_copy(source.path, stamp)
        except _BROKEN as error:
            self._report(source.path, f"not a whole database ({type(error).__name__}); {consequence}")
            return _Source(source.path, source.reader, stamp)
        self._report(source.path, "in use")
        return _Source(source.path, reader, stamp)


def _find(
    readers: Sequence[Any], flaw: str, company: Sequence[IpNetwork], vpn: Sequence[IpNetwork], ip: str
) -> Network:
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return Network(flaw=flaw)
    address = getattr(address, "ipv4_mapped", None) or address
    fields: dict[str, Any] = {}
    for reader in readers:
        try:
            if address.version == 6 and reader.metadata().ip_version != 6:  # noqa: PLR2004
                continue
            record = reader.get(address)
            read = _read(record) if isinstance(record, dict) else {}
        except _BROKEN:
            flaw = "broken"
            continue
        fields = read | fields
    return Network(
        **fields,
        vpn=any(address in network for network in vpn),
        company=any(address in network for network in company),
        flaw=flaw,
    )


def default_database() -> Path | None:
    """The country database that is installed beside the gateway (package python-geoacumen), None without one."""
    spec = find_spec("geoacumen")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("db") / "Geoacumen-Country.mmdb"
    return path if path.is_file() else None


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = os.stat(path)  # noqa: PTH116  (half the price, and on a timer of every worker)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _open_copy(path: Path, stamp: _Stamp) -> Any:
    """A reader of a private copy of the file, tried out. Raises one of `_BROKEN`."""
    with tempfile.TemporaryDirectory(prefix="gateway-geo-") as folder:
        copy = Path(folder) / "copy.mmdb"
        if stamp[1] > _LIMIT_BYTES:
            raise ValueError("too large")
        shutil.copyfile(path, copy)
        if _stamp(path) != stamp or copy.stat().st_size != stamp[1]:
            raise ValueError("it changed while it was read")
        reader = maxminddb.open_database(str(copy), maxminddb.MODE_MMAP_EXT)
    for probe in _probes(reader.metadata().ip_version):
        record = reader.get(probe)
        if record is not None and not isinstance(record, dict):
            raise ValueError("its records are no objects")
    return reader


def _probes(version: int) -> list[str]:
    """Addresses all over the space, so that a tree or a record that is broken shows."""
    probes = [f"{first}.{second}.1.1" for first in range(1, 224) for second in (7, 87, 167, 247)]
    if version == 6:  # noqa: PLR2004
        probes += [f"2{first:03x}:{second:x}00::1" for first in range(0x1000)[::16] for second in (2, 0x42, 0xA2)]
    return probes


def _read(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says, in the common layouts (MaxMind, DB-IP, ip-location-db, IPinfo); bad values are left out."""
    country, place = _part(record, "country"), _part(record, "location")
    code = country.get("iso_code") or record.get("country_code") or record.get("country")
    fields: dict[str, Any] = {}
    if isinstance(code, str) and _COUNTRY.match(code) and code not in _NO_COUNTRY:
        fields["country"] = code
    asn = _AS_NUMBER.match(str(record.get("autonomous_system_number") or record.get("asn") or ""))
    if asn is not None and 0 < int(asn[1]) <= _MOST_ASN:
        fields["asn"] = int(asn[1])
        name = record.get("autonomous_system_organization") or record.get("as_name") or record.get("name")
        if isinstance(name, str):
            fields["organisation"] = name[:_NAME]
    latitude = _number(place.get("latitude", record.get("latitude")), 90.0)
    longitude = _number(place.get("longitude", record.get("longitude")), 180.0)
    if latitude is not None and longitude is not None:
        fields |= {"latitude": latitude, "longitude": longitude}
        radius = _number(place.get("accuracy_radius"), _MOST_KM)
        if radius is not None and radius >= 0:
            fields["accuracy_km"] = radius
    return fields


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _number(value: object, most: float) -> float | None:
    """A finite number of at most `most` either way, else None; some files write it as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) <= most else None
