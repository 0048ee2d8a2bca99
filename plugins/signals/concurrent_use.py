"""`concurrent_use`: one session by cookie is used from two places in turn, as only two holders can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation, Scope, SignalResult

_RECENT = 6


class ConcurrentUse:
    """One term when two (network, JA4) pairs alternate within `window_s`: A, B, then A again.

    Two programs (JA4_b differs) weigh `weight`, one program in two networks half of it. It holds for ten windows.
    """

    name = "concurrent_use"
    scope: Scope = "session"
    failures = False
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "window_s": {"type": "number", "minimum": 5, "maximum": 3600},
            "weight": {"type": "number", "minimum": 0, "maximum": 10},
        },
        "additionalProperties": False,
        "examples": [{}, {"window_s": 30, "weight": 6}],
    }

    def __init__(self, window_s: float = 60.0, weight: float = 5.0) -> None:
        self.bound = weight
        self._window_s, self._weight = window_s, weight

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """`memory` is {"p": [[pair, time it was last seen], ...], latest last, "x": [time, weight]}."""
        if seen.kind != "session" or seen.bound:
            return SignalResult((), memory, memory)
        pair = f"{seen.place} {seen.ja4_b}"
        before = memory.get("p", ())
        recent = [item for item in before if 0 <= seen.now - item[1] <= self._window_s]
        at, value = memory.get("x", (0.0, 0.0))
        if seen.now - at > 10 * self._window_s:
            value = 0.0
        if recent and recent[-1][0] != pair and any(item[0] == pair for item in recent):
            two_programs = any(item[0].rpartition(" ")[2] != seen.ja4_b for item in recent)
            at, value = seen.now, max(value, self._weight if two_programs else self._weight / 2)
        terms = (RiskTerm(self.name, value, "two places in turn, within seconds"),) if value else ()
        # A pair that stays the same is not written anew: it takes one turn more to see the next holder.
        if before and before[-1][0] == pair and tuple(memory.get("x", (0.0, 0.0))) == (at, value):
            return SignalResult(terms, memory, memory)
        following: dict[str, Any] = {"p": [*recent, [pair, seen.now]][-_RECENT:]}
        if value:
            following["x"] = [at, value]
        return SignalResult(terms, following, following)
