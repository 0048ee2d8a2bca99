"""Reload: on SIGHUP, and whenever a file that the configuration names has changed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Protocol

from gateway.config import Config
from gateway.server.file_watch import stamps
from gateway.wiring import watched_paths

_LOOK_S = 0.2


class Reloadable(Protocol):
    """What can be reloaded: the supervisor."""

    config_path: Path
    config: Config

    async def reload(self) -> str:
        """Load everything anew; the error's text, "" when all went well."""


async def reload_on_change(target: Reloadable, hangup: asyncio.Event, look_s: float = _LOOK_S) -> None:
    """For ever: look at the files every `look_s` seconds, reload when they have changed or `hangup` (SIGHUP) is set.

    The stamps are taken before a reload. What changes while it is under way, and so may or may not have been loaded, is
    a change at the next look.
    """
    seen = stamps(watched_paths(target.config_path, target.config))
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hangup.wait(), look_s)
        before, seen = seen, stamps(watched_paths(target.config_path, target.config))
        if hangup.is_set() or seen != before:
            hangup.clear()
            await target.reload()
