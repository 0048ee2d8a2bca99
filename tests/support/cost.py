"""The cost of a call, told from the machine's load: processor time, in units of a reference measured beside it.

Absolute figures belong to `make bench`. A test that holds a bound on a hot path compares: ten units are ten times the
reference on any machine, however busy it is.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

_ROUNDS, _CALLS = 9, 100


def cost(call: Callable[[], object], calls: int = _CALLS) -> float:
    """Processor time of one call, in reference units (about 10 us on a machine of 2025); the best of several rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        unit, started = _reference_s(), time.thread_time()
        for _ in range(calls):
            call()
        best = min(best, (time.thread_time() - started) / calls / unit)
    return best


async def cost_of(call: Callable[[], Awaitable[object]], calls: int = _CALLS) -> float:
    """The same for a coroutine function, with what it takes of this thread."""
    best = float("inf")
    for _ in range(_ROUNDS):
        unit, started = _reference_s(), time.thread_time()
        for _ in range(calls):
            await call()
        best = min(best, (time.thread_time() - started) / calls / unit)
    return best


def _reference_s() -> float:
    started = time.thread_time()
    for _ in range(_CALLS):
        sum(range(1_000))
    return (time.thread_time() - started) / _CALLS
