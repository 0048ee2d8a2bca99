"""Tasks of one client connection: they end with it, and what they raise ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class ConnectionTasks:
    """The coroutines that run for a connection. `failed` hears what one raised; None for a task that was cancelled."""

    def __init__(self, failed: Callable[[BaseException | None], None]) -> None:
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine, as far as it comes at once."""
        task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
        if not task.done():
            self._running.add(task)
            task.add_done_callback(self._done)
        else:
            self._done(task)

    def cancel(self) -> None:
        """End them all."""
        for task in self._running:
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            self._failed(None)
        elif (error := task.exception()) is not None:
            self._failed(error)
