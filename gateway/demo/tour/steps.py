"""A row of the tour: what is done, what is expected, what was seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx
from websockets.exceptions import WebSocketException

from gateway.demo.clients.chromium import BrowserFailed
from gateway.demo.processes import ProcessFailed

_WRONG = (OSError, ValueError, LookupError, httpx.HTTPError, WebSocketException, ProcessFailed, BrowserFailed)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a step saw. `code` is the reason code, "" where there is none to see."""

    text: str
    passed: bool
    code: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the tour."""

    group: str
    title: str
    expected: str
    look: Callable[[], Seen]

    def take(self) -> Seen:
        """Take the step; what goes wrong on the way is a failed step."""
        try:
            return self.look()
        except (
            OSError,
            ValueError,
            LookupError,
            httpx.HTTPError,
            WebSocketException,
            ProcessFailed,
            BrowserFailed,
        ) as error:
            return Seen(f"{type(error).__name__}: {error}".partition("\n")[0][:200], passed=False)
