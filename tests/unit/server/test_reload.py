from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.server import reload
from gateway.server.reload import reload_on_change


class Target:
    """Stands for the supervisor: loads the names in a folder, and lets `during` happen while it does."""

    def __init__(self, folder: Path) -> None:
        self.config_path, self.config = folder, SimpleNamespace()
        self.loaded: list[list[str]] = []
        self.during: list[Callable[[], Any]] = []

    async def reload(self) -> str:
        if self.during:
            self.during.pop(0)()
        self.loaded.append(sorted(path.name for path in self.config_path.iterdir()))
        if self.during:
            self.during.pop(0)()
        return ""

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.loaded) < count:
                await asyncio.sleep(0.001)


@pytest.fixture
async def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(reload, "watched_paths", lambda path, _: (path,))
    os.utime(tmp_path, ns=(1, 1))
    target, target_hangup = Target(tmp_path), asyncio.Event()
    target.hangup = target_hangup  # type: ignore[attr-defined]
    task = asyncio.ensure_future(reload_on_change(target, target_hangup, look_s=0.001))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    yield target
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_nothing_is_reloaded_while_nothing_changes(target: Any) -> None:
    await asyncio.sleep(0.05)
    assert target.loaded == []


async def test_a_hangup_reloads_once_whatever_the_files_are(target: Any) -> None:
    target.hangup.set()
    await target.until(1)
    await asyncio.sleep(0.05)
    assert len(target.loaded) == 1


async def test_a_rule_that_was_loaded_and_taken_back_during_the_same_reload_is_unloaded(
    target: Any, tmp_path: Path
) -> None:
    rule = tmp_path / "closed.rego"
    # It is there when the files are loaded, and gone again before anybody looks.
    target.during = [lambda: rule.write_text("package x"), rule.unlink]
    target.hangup.set()
    await target.until(2)
    assert target.loaded == [["closed.rego"], []]


async def test_what_changes_during_a_reload_is_loaded_by_the_next(target: Any, tmp_path: Path) -> None:
    target.during = [lambda: None, lambda: (tmp_path / "late.rego").write_text("package x")]
    target.hangup.set()
    await target.until(2)
    assert target.loaded == [[], ["late.rego"]]
