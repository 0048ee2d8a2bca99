"""Rate limits of the own endpoints: a token bucket for each client, in this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from gateway.core.canonical import client_network


class RateLimiter:
    """A token bucket for each client, in this process's memory. None for all of them: anybody could empty that."""

    def __init__(self, burst: int = 20, per_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._per_s = per_s
        self._clock = clock
        self._most = 10_000
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether one more attempt is allowed; it is then counted."""
        now = self._clock()
        key = client_network(address)
        left, at = self._left.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - at) * self._per_s)
        allowed = left >= 1
        self._left[key] = (left - 1 if allowed else left, now)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return allowed
