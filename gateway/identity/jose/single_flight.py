"""Many callers, one call: whoever asks while the answer is on its way waits for that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable


class SingleFlight[K: Hashable, V]:
    """Runs at most one call for each key at a time, and at most `limit` in all.

    The call runs in a task of its own: a caller that goes away does not take it from the others.
    """

    def __init__(self, limit: int = 1_024) -> None:
        self._limit = limit
        self._calls: dict[K, asyncio.Task[V]] = {}

    def busy(self, key: K) -> bool:
        """Whether a call for `key` is running."""
        return key in self._calls

    def start(self, key: K, call: Callable[[], Awaitable[V]]) -> asyncio.Task[V] | None:
        """The running call for `key`, started if need be; None when there are too many."""
        task = self._calls.get(key)
        if task is None:
            if len(self._calls) >= self._limit:
                return None
            task = asyncio.ensure_future(_run(call))
            self._calls[key] = task
            task.add_done_callback(lambda _: self._calls.pop(key, None))
        return task

    async def ask(self, key: K, call: Callable[[], Awaitable[V]]) -> V | None:
        """The answer of the one call for `key`; None when there are too many or `close` ended it.

        Raises what the call raises.
        """
        task = self.start(key, call)
        if task is None:
            return None
        await asyncio.wait((task,))
        return None if task.cancelled() else task.result()

    async def close(self, grace_s: float = 10.0) -> None:
        """Let what runs come to its end, and cancel what has not by then."""
        tasks = list(self._calls.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _run[V](call: Callable[[], Awaitable[V]]) -> V:
    return await call()
