"""Quarantine: taking this node out of service, at once and for every worker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from gateway.core.reasons import Refusal

_LOOK_EVERY_S = 0.25
_QUARANTINED = Refusal("node_quarantined", "the flag is set")
_UNREADABLE = Refusal("node_quarantined", "the flag cannot be looked for")


class Quarantine:
    """A flag file in the state folder that every worker looks for. What cannot be looked for counts as set."""

    def __init__(self, state: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._flag = state / "quarantine"
        self._clock = clock
        self._looked_at = float("-inf")
        self._answer: Refusal | None = _UNREADABLE

    def check(self) -> Refusal | None:
        """None, or Refusal `node_quarantined`. At most 0.25 s old; never raises."""
        now = self._clock()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._answer = self._look()
            self._looked_at = now
        return self._answer

    def flag(self, why: str) -> None:
        """Set the flag, durably; the first `why` stays. Raises OSError when it cannot be set."""
        self._looked_at = float("-inf")
        try:
            fd = os.open(self._flag, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({"why": why, "at": time.time()}, file)
            file.flush()
            os.fsync(fd)
        folder = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def why(self) -> str:
        """What the flag says; "" without one, and "unknown" when it cannot be read."""
        try:
            note = json.loads(self._flag.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ""
        except (OSError, ValueError):
            return "unknown"
        return str(note.get("why", "unknown")) if isinstance(note, dict) else "unknown"

    def clear(self) -> None:
        """Take the flag away. Raises OSError when it cannot be taken away."""
        self._flag.unlink(missing_ok=True)
        self._looked_at = float("-inf")

    def _look(self) -> Refusal | None:
        try:
            if not self._state.is_dir():
                return _UNREADABLE
            self._flag.lstat()
        except FileNotFoundError:
            return None
        except OSError:
            return _UNREADABLE
        return _QUARANTINED
