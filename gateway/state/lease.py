"""Leases and locks among workers, by compare-and-set over documents. Everything raises StoreDown.

A lease makes one worker of all the runner of something that goes on for ever. A lock guards one short piece of work.
Both end by themselves, so that a worker that dies stops nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.core.ports.documents import Documents

_LEASES, _LOCKS = "lease", "lock"
_FOREVER_S = 400 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of one worker, `owner`, to run `key`, for `life_s` seconds at a time.

    Its end stands in the value, and nobody deletes it. It is renewed once no more than `renew_s` seconds of it are
    left; by default whenever it is asked for.
    """

    documents: Documents
    key: str
    owner: str
    life_s: float
    clock: Callable[[], float]
    renew_s: float = float("inf")

    async def hold(self) -> bool:
        """Whether this worker is the runner now: it takes the lease where nobody has it, and renews its own."""
        now = self.clock()
        document = await self.documents.get(_LEASES, self.key, now)
        if document is not None:
            owner, until = _read(document.value)
            # One that ends later than any can was written before the clock was set back.
            is_good = now < until <= now + self.life_s
            if owner != self.owner and is_good:
                return False
            if owner == self.owner and is_good and until - now > self.renew_s:
                return True
        value = json.dumps({"name": self.owner, "until": now + self.life_s}).encode()
        version = 0 if document is None else document.version
        return await self.documents.put(_LEASES, self.key, value, now + _FOREVER_S, version=version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Locks:
    """Mutual exclusion by key, for `life_s` seconds at most: longer than the work takes."""

    documents: Documents
    life_s: float
    clock: Callable[[], float]

    async def acquire(self, key: str, owner: str) -> bool:
        """Take the lock; False while somebody has it. `owner` is a name that nobody else takes it by."""
        return await self.documents.put(_LOCKS, key, owner.encode("ascii"), self.clock() + self.life_s, version=0)

    async def release(self, key: str, owner: str) -> None:
        """Give the lock back, unless it is over and somebody else's by now."""
        now = self.clock()
        document = await self.documents.get(_LOCKS, key, now)
        if document is not None and document.value == owner.encode("ascii"):
            await self.documents.put(_LOCKS, key, document.value, now, version=document.version)


def _read(value: bytes) -> tuple[str, float]:
    """Whose a lease is and until when; nobody's for what cannot be read."""
    try:
        lease: Any = json.loads(value)
        return str(lease["name"]), float(lease["until"])
    except (ValueError, KeyError, TypeError):
        return "", 0.0
