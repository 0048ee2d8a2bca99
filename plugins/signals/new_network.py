"""`new_network`: a person comes from a network that was never seen with this person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation, Scope, SignalResult

_DAY_S = 86_400


class NewNetwork:
    """One term for a network (its AS, else its address range) outside of those learned in the last `days`."""

    name = "new_network"
    scope: Scope = "subject"
    failures = False
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "weight": {"type": "number", "minimum": 0, "maximum": 10},
            "days": {"type": "integer", "minimum": 1, "maximum": 730},
            "most": {"type": "integer", "minimum": 1, "maximum": 200},
        },
        "additionalProperties": False,
        "examples": [{}, {"weight": 2, "days": 30, "most": 20}],
    }

    def __init__(self, weight: float = 1.0, days: int = 180, most: int = 50) -> None:
        self.bound = weight
        self._days, self._most = days, most

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """`memory`: network -> the day it was last seen. The first network of all is no news, and home never is."""
        today = int(seen.now // _DAY_S)
        known = {place: day for place, day in memory.items() if today - day <= self._days}
        learned = memory
        if memory.get(seen.place) != today:
            latest = sorted(known.items(), key=lambda item: item[1])[-(self._most - 1) :] if self._most > 1 else []
            learned = {**dict(latest), seen.place: today}
        if not memory or seen.at_home or seen.place in known:
            return SignalResult((), memory, learned)
        return SignalResult((RiskTerm(self.name, self.bound, seen.place or "unknown"),), memory, learned)
