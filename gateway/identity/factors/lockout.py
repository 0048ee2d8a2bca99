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
from gateway.state.collection import Codec, Collection

WINDOW_S = 300.0
LOCK_S, LOCK_MOST_S = 300.0, 86_400.0
_REMEMBERED_S = 86_400.0
_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class _Count:
    """The times of the latest failures, how many locks there were, and the end of the last; seconds since the epoch."""

    at: tuple[float, ...] = ()
    locks: int = 0
    until: float = 0.0


_CODEC: Codec[_Count] = Codec(
    encode=lambda count: json.dumps(asdict(count)).encode(), decode=lambda value: _Count(**json.loads(value))
)


class Lockout:
    """Locks a key when too many attempts fail within five minutes; `reason` is the refusal's.

    The first lock is five minutes long, each further one twice as long as the one before, up to a day. A success, or a
    day without an attempt after the last lock, begins anew.
    """

    def __init__(self, documents: Documents, collection: str, reason: str, clock: Callable[[], float]) -> None:
        self._counts = Collection(documents=documents, name=collection, codec=_CODEC, clock=clock)
        self._reason = reason
        self._clock = clock

    async def locked(self, key: str) -> Refusal | None:
        """The refusal while `key` is locked."""
        return self._refusal(await self._counts.get(key) or _Count(), self._clock())

    async def count(self, key: str, most: int) -> Refusal | None:
        """Count an attempt, or refuse it. The `most`-th failure within the window locks the key."""
        async for entry in self._counts.attempts(key):
            now, count = self._clock(), entry.value or _Count()
            if locked := self._refusal(count, now):
                return locked
            at = (*(at for at in count.at if at > now - WINDOW_S), now)
            following = _Count(at, count.locks)
            if len(at) >= most:
                lock_s = min(LOCK_S * 2 ** min(count.locks, _DOUBLINGS), LOCK_MOST_S)
                following = _Count((), count.locks + 1, now + lock_s)
            if await self._counts.replace(entry, following, max(now, following.until) + _REMEMBERED_S):
                return None
        return Refusal(self._reason, "too much at the same time")

    async def forget(self, key: str) -> None:
        """An attempt was a success."""
        await self._counts.delete(key)

    def _refusal(self, count: _Count, now: float) -> Refusal | None:
        return Refusal(self._reason, f"for {count.until - now:.0f} s more") if now < count.until else None
