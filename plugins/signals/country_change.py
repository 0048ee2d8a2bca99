"""`country_change`: a session goes on in another country than the one it was used in before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation, Scope, SignalResult


class CountryChange:
    """One term when the country differs from the session's, a smaller one when one of the two is not known."""

    name = "country_change"
    scope: Scope = "session"
    failures = False
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "weight": {"type": "number", "minimum": 0, "maximum": 10},
            "unknown": {"type": "number", "minimum": 0, "maximum": 10},
        },
        "additionalProperties": False,
        "examples": [{}, {"weight": 3, "unknown": 2}],
    }

    def __init__(self, weight: float = 2.0, unknown: float = 1.0) -> None:
        self.bound = max(weight, unknown)
        self._weight, self._unknown = weight, unknown

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """`memory` is {"c": country, "" for unknown}; inside the company there is nothing to compare."""
        if seen.at_home:
            return SignalResult((), memory, memory)
        here = seen.network.country or ""
        before = memory.get("c", here)
        learned = memory if memory.get("c") == here else {"c": here}
        if here == before:
            return SignalResult((), memory or learned, learned)
        value = self._weight if here and before else self._unknown
        term = RiskTerm(self.name, value, f"{here or 'unknown'}, was {before or 'unknown'}")
        return SignalResult((term,), memory, learned)
