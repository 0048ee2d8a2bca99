"""`credential_stuffing`: somebody tries to get into this account, and then somebody gets in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation, Scope, SignalResult

_KEPT = 32


class CredentialStuffing:
    """One term while an account has seen failures from several networks, more for a success from one of them.

    The owner who mistypes does so in one network: that counts for nothing until there are ten failures.
    """

    name = "credential_stuffing"
    scope: Scope = "subject"
    failures = True
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "window_s": {"type": "number", "minimum": 60, "maximum": 86400},
            "networks": {"type": "integer", "minimum": 2, "maximum": 20},
            "weight": {"type": "number", "minimum": 0, "maximum": 10},
        },
        "additionalProperties": False,
        "examples": [{}, {"window_s": 7200, "networks": 2, "weight": 3}],
    }

    def __init__(self, window_s: float = 3_600.0, networks: int = 3, weight: float = 2.0) -> None:
        self.bound = 2 * weight
        self._window_s, self._networks, self._weight = window_s, networks, weight

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """`memory` is {"f": [[time, network], ...], oldest first}."""
        recent = [item for item in memory.get("f", ()) if 0 <= seen.now - item[0] <= self._window_s]
        if seen.failed:
            following = {"f": [*recent, [seen.now, seen.place]][-_KEPT:]}
            return SignalResult((), following, following)
        places = {place for _, place in recent}
        if len(places) < self._networks and len(recent) < 10:  # noqa: PLR2004  (see the docstring)
            return SignalResult((), memory, memory)
        value = self.bound if seen.place in places and not seen.at_home else self._weight
        why = f"{len(recent)} failed attempts at this account from {len(places)} networks"
        return SignalResult((RiskTerm(self.name, value, why),), memory, memory)
