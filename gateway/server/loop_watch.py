"""The worker's watchdog: a heartbeat that stops when one callback never ends, and goes on when there are many.

A thread looks at the event loop. The worker lives while the loop's clock ticks, or while it is at another callback than
at the last look: that is load. The same callback again and again, without a tick, is a loop that is held.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from types import FrameType


class LoopWatch:
    """Watches the loop that runs `tick`. `beat` is called from the thread, every `interval_s` while the loop lives."""

    def __init__(self, beat: Callable[[], None], interval_s: float = 1.0) -> None:
        self._beat, self._interval_s = beat, interval_s
        self._loop_thread = threading.get_ident()
        self._depth = 0
        self._ticks = self._seen_ticks = 0
        self._seen: FrameType | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop-watch", daemon=True)

    async def tick(self) -> None:
        """For ever: show that the loop's timers are served. The thread begins with it and ends with it."""
        self._loop_thread = threading.get_ident()
        self._depth = _depth(sys._getframe())  # noqa: SLF001  (the documented way to one's own frame)
        self._thread.start()
        try:
            while True:
                self._ticks += 1
                await asyncio.sleep(self._interval_s / 2)
        finally:
            self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            if self._is_alive():
                self._beat()

    def _is_alive(self) -> bool:
        callback, ticks = self._callback(), self._ticks
        alive = callback is not self._seen or ticks != self._seen_ticks
        # The frame itself is kept until the next look: its address alone would be given to another one.
        self._seen, self._seen_ticks = callback, ticks
        return alive

    def _callback(self) -> FrameType | None:
        """The callback that the loop is at; None when that is no Python code, as while it waits for something to do."""
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  (documented; the leading underscore warns)
        above = _depth(frame) - self._depth if frame is not None else -1
        for _ in range(above):
            frame = frame.f_back if frame is not None else None
        return frame if above >= 0 else None


def _depth(frame: FrameType | None) -> int:
    depth = 0
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    return depth
