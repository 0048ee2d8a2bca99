"""One record by what an operator calls it: its id, the start of its id, or its name."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.ports.stores import DeviceRecord, SessionRecord
from gateway.operations.errors import ActionFailed

_PREFIX_LENGTH = 6


def pick_device(records: Sequence[DeviceRecord], wanted: str) -> DeviceRecord:
    """The device of this id, name or start of an id. Raises ActionFailed for none, and for several."""
    return _pick([r for r in records if wanted in {r.id, r.name}] or _by_prefix(records, wanted), wanted)


def pick_session(records: Sequence[SessionRecord], wanted: str) -> SessionRecord:
    """The session of this id or start of an id. Raises ActionFailed for none, and for several."""
    return _pick([r for r in records if r.id == wanted] or _by_prefix(records, wanted), wanted)


def _by_prefix[Record: (DeviceRecord, SessionRecord)](records: Sequence[Record], wanted: str) -> list[Record]:
    return [record for record in records if len(wanted) >= _PREFIX_LENGTH and record.id.startswith(wanted)]


def _pick[Record: (DeviceRecord, SessionRecord)](records: list[Record], wanted: str) -> Record:
    if not records:
        raise ActionFailed(f"There is no `{wanted}`.", "The list command shows what there is.")
    if len(records) > 1:
        raise ActionFailed(f"`{wanted}` stands for {len(records)} entries.", "Use the whole id.")
    return records[0]
