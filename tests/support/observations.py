"""Moments as signals see them, and a signal with its memory."""

from __future__ import annotations

import json
from typing import Any

from gateway.core.ports.pipeline import Network
from gateway.core.signals import Observation, Signal

NOW = 1_800_000_000.0
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
HINTS = 'Chromium|Google Chrome|"Linux"|?0'
JA4, SCRIPT_JA4 = "t13d1516h2_8daaf6152771_b186095e22b6", "t13d3112h2_e8f1e7e78f70_6bebaf5329ac"
BERLIN = Network("DE", 64500, "Example Net", 52.52, 13.40, 20.0)
MUNICH = Network("DE", 64501, "Other Net", 48.14, 11.58, 20.0)
SYDNEY = Network("AU", 64510, "Far Net", -33.87, 151.21, 50.0)


def seen(at: float = 0.0, **changes: Any) -> Observation:
    """Ann's browser in Berlin, `at` seconds after NOW."""
    usual = {"now": NOW + at, "subject": "ann", "session": "s1", "ip": "192.0.2.7", "network": BERLIN, "ja4": JA4}
    return Observation(**(usual | {"agent": CHROME, "hints": HINTS} | changes))


class Watched:
    """A signal and what it remembers; memories go through JSON, as in the store."""

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.memory: dict[str, Any] = {}

    def see(self, observation: Observation, *, believe: bool = True) -> dict[str, float]:
        """The terms of one observation; `believe`: it is learned from."""
        sighting = self.signal.assess(observation, self.memory)
        self.memory = json.loads(json.dumps(sighting.learned if believe else sighting.memory))
        return {term.name: term.value for term in sighting.terms}
