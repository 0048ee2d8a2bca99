"""How the records of devices and sessions are shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway.cli import output

if TYPE_CHECKING:
    from gateway.core.ports.stores import DeviceRecord, SessionRecord


def entry_of(record: DeviceRecord | SessionRecord, *, json_wanted: bool) -> dict[str, Any]:
    """A record for programs as it is; for people with readable times."""
    entry = asdict(record)
    if json_wanted:
        return entry
    entry.setdefault("status", "revoked" if record.revoked_at is not None else "active")
    times = [name for name in entry if name.endswith("_at")]
    return {name: value for name, value in entry.items() if name not in times} | {
        name.removesuffix("_at"): output.moment(entry[name]) for name in times
    }
