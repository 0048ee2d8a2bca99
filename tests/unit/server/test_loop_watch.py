"""A held loop is told from a loaded one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from gateway.server.loop_watch import LoopWatch

INTERVAL_S = 0.05


def beats_during(work: Callable[[], None], new_loop: Callable[[], asyncio.AbstractEventLoop]) -> int:
    """How often the watchdog beats from the beginning of `work` to the end of what it puts into the loop."""
    beats: list[float] = []

    async def run() -> int:
        watch = LoopWatch(lambda: beats.append(time.monotonic()), INTERVAL_S)
        ticking = asyncio.create_task(watch.tick())
        await asyncio.sleep(4 * INTERVAL_S)
        before = len(beats)
        assert before
        work()
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(done.set_result, None)
        await done
        after = len(beats)
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
        return after - before

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(run())


LOOPS = pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])


@LOOPS
def test_one_callback_that_does_not_end_stops_the_heartbeat(new_loop: Any) -> None:
    # The look that finds the callback for the first time still beats.
    assert beats_during(lambda: time.sleep(20 * INTERVAL_S), new_loop) <= 2


@LOOPS
def test_a_loop_in_python_that_does_not_end_stops_the_heartbeat(new_loop: Any) -> None:
    def spin() -> None:
        until = time.monotonic() + 20 * INTERVAL_S
        while time.monotonic() < until:
            sum(range(100))

    assert beats_during(spin, new_loop) <= 2


@LOOPS
def test_a_callback_without_a_python_frame_is_seen_too(new_loop: Any) -> None:
    def work() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 20 * INTERVAL_S)

    assert beats_during(work, new_loop) <= 2


@LOOPS
def test_many_callbacks_in_one_turn_are_load(new_loop: Any) -> None:
    def work() -> None:
        for _ in range(30):
            asyncio.get_running_loop().call_soon(lambda: time.sleep(INTERVAL_S))

    assert beats_during(work, new_loop) >= 10
