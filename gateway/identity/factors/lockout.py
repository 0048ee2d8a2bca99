"""How often something may go wrong, counted in the store for all workers. Raises StoreDown.

Law: an attempt is counted as a failure before it is judged, and forgotten when it was none. So many at the same time
are not more than many in turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from gateway.core.ports.documents import Documents
from gateway.core.reasons import Refusal

WINDOW_S = 300.0
LOCK_S, LOCK_MOST_S = 300.0, 86_400.0
_REMEMBERED_S = 86_400.0
_DOUBLINGS = 16
_TRIES = 50


@dataclass(frozen=True, slots=True)
class _Count:
    """The times of the latest failures, how many locks there were, and the end of the last; seconds since the epoch."""

    at: tuple[float, ...] = ()
    locks: int = 0
    until: float = 0.0


class Lockout:
    """Locks a key when too many attempts fail within five minutes; `reason` is the refusal's.

    The first lock is five minutes long, each further one twice as long as the one before, up to a day. A success, or a
    day without an attempt after the last lock, begins anew.
    """

    def __init__(self, documents: Documents, collection: str, reason: str, clock: Callable[[], float]) -> None:
        self._documents = documents
        self._collection = collection
        self._reason = reason
        self._clock = clock

    async def locked(self, key: str) -> Refusal | None:
        """The refusal while `key` is locked."""
        now = self._clock()
        count, _ = await self._read(key, now)
        return self._refusal(count, now)

    async def count(self, key: str, most: int) -> Refusal | None:
        """Count an attempt, or refuse it. The `most`-th failure within the window locks the key."""
        for _ in range(_TRIES):
            now = self._clock()
            count, version = await self._read(key, now)
            if locked := self._refusal(count, now):
                return locked
            at = (*(at for at in count.at if at > now - WINDOW_S), now)
            following = _Count(at, count.locks)
            if len(at) >= most:
                lock_s = min(LOCK_S * 2 ** min(count.locks, _DOUBLINGS), LOCK_MOST_S)
                following = _Count((), count.locks + 1, now + lock_s)
            kept_until = max(now, following.until) + _REMEMBERED_S
            value = json.dumps(asdict(following)).encode()
            if await self._documents.put(self._collection, key, value, kept_until, version=version):
                return None
        return Refusal(self._reason, "too much at the same time")

    async def forget(self, key: str) -> None:
        """An attempt was a success."""
        await self._documents.delete(self._collection, key)

    async def _read(self, key: str, now: float) -> tuple[_Count, int]:
        document = await self._documents.get(self._collection, key, now)
        return (_Count(), 0) if document is None else (_Count(**json.loads(document.value)), document.version)

    def _refusal(self, count: _Count, now: float) -> Refusal | None:
        return Refusal(self._reason, f"for {count.until - now:.0f} s more") if now < count.until else None
