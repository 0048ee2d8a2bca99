"""Risk memory, shared by every worker: small JSON documents, written by compare-and-set.

Collections: `risk_session` (one for each session), `risk_profile` (for each person), `risk_population` (for each client
network, and one for everybody). What another version wrote in another format counts as nothing. Raises StoreDown.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from gateway.core.ports.documents import Documents
from gateway.core.signals import Scope
from gateway.state.collection import Codec, Collection, Entry

FORMAT = 1
COLLECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "session": "risk_session",
        "subject": "risk_profile",
        "network": "risk_population",
        "everybody": "risk_population",
    }
)
type Kind = Scope | Literal["everybody"]
_DAY_S = 86_400.0
_MOST_IN_PROCESS = 10_000


@dataclass(frozen=True, slots=True)
class Remembered:
    """One document: what each signal remembers by its name, and the assessor itself as "_". Version 0 is a new one."""

    kind: Kind
    key: str
    parts: Mapping[str, Any]
    version: int = 0

    def of(self, name: str) -> Mapping[str, Any]:
        """What one signal remembers; nothing at first."""
        found = self.parts.get(name)
        return found if isinstance(found, dict) else {}


def _decode(value: bytes) -> Mapping[str, Any]:
    """The parts; nothing of a document in another format."""
    parts = json.loads(value)
    return parts if isinstance(parts, dict) and parts.get("v") == FORMAT else {}


_CODEC: Codec[Mapping[str, Any]] = Codec(
    encode=lambda parts: json.dumps({**parts, "v": FORMAT}, separators=(",", ":")).encode(), decode=_decode
)


class RiskMemory:
    """The documents. `quiet` ones live in this process alone, for routes of which no trace may stay."""

    def __init__(self, documents: Documents, clock: Callable[[], float], *, remember_days: float = 180.0) -> None:
        self._collections = {
            kind: Collection(documents=documents, name=name, codec=_CODEC, clock=clock)
            for kind, name in COLLECTIONS.items()
        }
        self._clock = clock
        long_s = remember_days * _DAY_S
        self._life_s = {"session": 3 * _DAY_S, "subject": long_s, "network": _DAY_S, "everybody": long_s}
        self._in_process: dict[str, tuple[Mapping[str, Any], int]] = {}
        self._versions = itertools.count(1)

    async def read(self, kind: Kind, key: str, *, quiet: bool = False) -> Remembered:
        """What is remembered under `key`, empty when there is nothing."""
        if quiet:
            return Remembered(kind, key, *self._in_process.get(key, ({}, 0)))
        entry = await self._collections[kind].read(key)
        return Remembered(kind, key, entry.value or {}, entry.version)

    async def write(self, remembered: Remembered, parts: Mapping[str, Any], *, quiet: bool = False) -> bool:
        """Write over exactly what was read; False when somebody else was faster."""
        if quiet:
            if self._in_process.get(remembered.key, ({}, 0))[1] != remembered.version:
                return False
            if len(self._in_process) >= _MOST_IN_PROCESS:
                self._in_process.clear()
            self._in_process[remembered.key] = parts, next(self._versions)
            return True
        over: Entry[Mapping[str, Any]] = Entry(remembered.key, None, remembered.version)
        until = self._clock() + self._life_s[remembered.kind]
        return await self._collections[remembered.kind].replace(over, parts, until)

    async def forget(self, kind: Kind, key: str) -> bool:
        """Forget a document; whether it was there."""
        return await self._collections[kind].delete(key)
