"""`new_device`: a person uses a device or browser that was never seen with this person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation, Scope, SignalResult

_DAY_S = 86_400
_DIGITS = re.compile(r"[0-9]+(?:[._][0-9]+)*")


class NewDevice:
    """One term for an unknown browser, a smaller one for an enrolled device that this person has not used before.

    A browser is its cipher suites (JA4_b) and its User-Agent without version numbers: an update is no new device.
    """

    name = "new_device"
    scope: Scope = "subject"
    failures = False
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "weight": {"type": "number", "minimum": 0, "maximum": 10},
            "enrolled": {"type": "number", "minimum": 0, "maximum": 10},
            "days": {"type": "integer", "minimum": 1, "maximum": 730},
            "most": {"type": "integer", "minimum": 1, "maximum": 100},
        },
        "additionalProperties": False,
        "examples": [{}, {"weight": 2, "enrolled": 1, "days": 30, "most": 10}],
    }

    def __init__(self, weight: float = 1.5, enrolled: float = 0.5, days: int = 180, most: int = 20) -> None:
        self.bound = max(weight, enrolled)
        self._weight, self._enrolled = weight, enrolled
        self._days, self._most = days, most

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """`memory`: device -> the day it was last seen. The first device of all is no news."""
        shape = _DIGITS.sub("#", seen.agent)[:160]
        name = f"device {seen.device_id}" if seen.device_id else f"{seen.ja4_b} {shape}"
        today = int(seen.now // _DAY_S)
        known = {device: day for device, day in memory.items() if today - day <= self._days}
        learned = memory
        if memory.get(name) != today:
            latest = sorted(known.items(), key=lambda item: item[1])[-(self._most - 1) :] if self._most > 1 else []
            learned = {**dict(latest), name: today}
        if not memory or name in known:
            return SignalResult((), memory, learned)
        value = self._enrolled if seen.device_id else self._weight
        why = "an enrolled device" if seen.device_id else "a browser"
        return SignalResult((RiskTerm(self.name, value, f"{why} not seen with this person"),), memory, learned)
