from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.server import supervisor as module
from gateway.server.supervisor import Supervisor


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def supervisor(tmp_path: Path) -> Any:
    listen = SimpleNamespace(address="127.0.0.1", port=0, workers=1, drain_s=0)
    made = Supervisor(tmp_path / "gateway.yaml", SimpleNamespace(listen=listen), SimpleNamespace(), tmp_path)  # type: ignore[arg-type]
    yield made
    made._reserved.close()


async def test_a_worker_that_cannot_be_started_is_tried_again(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = asyncio.Event()
    outcomes = [OSError(12, "Cannot allocate memory"), OSError(11, "Resource temporarily unavailable")]

    async def start(*_: Any, **__: Any) -> None:
        if not outcomes:
            attempts.set()
        raise outcomes.pop() if outcomes else OSError(11, "still")

    monkeypatch.setattr(module, "_START_RETRY_S", 0.001)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    before = open_files()
    keeping = asyncio.ensure_future(supervisor.run_worker(0))
    await asyncio.wait_for(attempts.wait(), 5)
    supervisor.stopping.set()
    await asyncio.wait_for(keeping, 5)
    assert open_files() == before
    assert supervisor.workers == {}


async def test_a_loop_of_the_supervisor_that_fails_breaks_it(supervisor: Supervisor) -> None:
    async def fail() -> None:
        raise RuntimeError("gone")

    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])
    supervisor.task_ended(task)
    assert supervisor.is_broken


async def test_a_loop_of_the_supervisor_that_is_stopped_breaks_nothing(supervisor: Supervisor) -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    supervisor.task_ended(task)
    assert not supervisor.is_broken
