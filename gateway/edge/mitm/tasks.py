"""Tasks of one client connection: they end with it, and what they raise ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any


class ConnectionTasks:
    """The coroutines that run for a connection. Nothing of the connection is kept here, so that no ring comes to be."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Any, failed: Callable[[BaseException | None], None]) -> None:
        """Run a coroutine, as far as it comes at once. `failed` hears what it raised; None when it was cancelled."""
        task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
        if not task.done():
            self._running.add(task)
            task.add_done_callback(partial(self._done, failed))
        else:
            self._done(failed, task)

    def cancel(self) -> None:
        """End them all."""
        for task in self._running:
            task.cancel()

    def _done(self, failed: Callable[[BaseException | None], None], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            failed(None)
        elif (error := task.exception()) is not None:
            failed(error)
