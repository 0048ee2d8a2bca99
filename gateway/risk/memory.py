"""What the risk assessor remembers, shared by every worker: small JSON documents, written by compare-and-set.

Collections: `risk_session` (one for each session), `risk_profile` (for each person), `risk_population` (for each client
network, and one for everybody). What another version wrote in another format counts as nothing. Raises StoreDown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from gateway.core.ports.documents import Documents
from gateway.core.signals import Scope

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


class RiskMemory:
    """The documents. `quiet` ones live in this process alone, for routes of which no trace may stay."""

    def __init__(self, documents: Documents, clock: Callable[[], float], *, remember_days: float = 180.0) -> None:
        self._documents = documents
        self._clock = clock
        long_s = remember_days * _DAY_S
        self._life_s = {"session": 3 * _DAY_S, "subject": long_s, "network": _DAY_S, "everybody": long_s}
        self._in_process: dict[str, Mapping[str, Any]] = {}

    async def read(self, kind: Kind, key: str, *, quiet: bool = False) -> Remembered:
        """What is remembered under `key`, empty when there is nothing."""
        if quiet:
            return Remembered(kind, key, self._in_process.get(key, {}))
        document = await self._documents.get(COLLECTIONS[kind], key, self._clock())
        if document is None:
            return Remembered(kind, key, {})
        parts = json.loads(document.value)
        known = isinstance(parts, dict) and parts.get("v") == FORMAT
        return Remembered(kind, key, parts if known else {}, document.version)

    async def write(self, remembered: Remembered, parts: Mapping[str, Any], *, quiet: bool = False) -> bool:
        """Write over exactly what was read; False when somebody else was faster."""
        if quiet:
            if len(self._in_process) >= _MOST_IN_PROCESS:
                self._in_process.clear()
            self._in_process[remembered.key] = parts
            return True
        value = json.dumps({**parts, "v": FORMAT}, separators=(",", ":")).encode()
        return await self._documents.put(
            COLLECTIONS[remembered.kind],
            remembered.key,
            value,
            self._clock() + self._life_s[remembered.kind],
            version=remembered.version,
        )

    async def forget(self, kind: Kind, key: str) -> bool:
        """Forget a document; whether it was there."""
        return await self._documents.delete(COLLECTIONS[kind], key)
