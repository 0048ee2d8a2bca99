"""`password_spraying`: one network tries many accounts, and then one of them lets it in."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any, ClassVar

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation, Scope, SignalResult

_KEPT = 64


class PasswordSpraying:
    """One term while attempts at `accounts` or more different accounts failed from the client's network.

    It grows with the logarithm of their number. The network is the address's /24 (IPv6: /48), so that many people
    behind one address are told from one attacker by their number alone.
    """

    name = "password_spraying"
    scope: Scope = "network"
    failures = True
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "window_s": {"type": "number", "minimum": 60, "maximum": 86400},
            "accounts": {"type": "integer", "minimum": 2, "maximum": 50},
            "weight": {"type": "number", "minimum": 0, "maximum": 5},
        },
        "additionalProperties": False,
        "examples": [{}, {"window_s": 1800, "accounts": 10, "weight": 2}],
    }

    def __init__(self, window_s: float = 900.0, accounts: int = 5, weight: float = 1.5) -> None:
        self.bound = 3 * weight
        self._window_s, self._accounts, self._weight = window_s, accounts, weight

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """`memory`: account -> the time of its last failure."""
        recent = {account: at for account, at in memory.items() if 0 <= seen.now - at <= self._window_s}
        if seen.failed:
            account = seen.account or seen.subject
            recent.pop(account, None)
            following = dict([*recent.items(), (account, seen.now)][-_KEPT:])
            return SignalResult((), following, following)
        others = len(recent.keys() - {seen.subject, seen.account})
        if others < self._accounts or seen.at_home:
            return SignalResult((), memory, memory)
        value = min(self.bound, self._weight * (1 + log2(others / self._accounts)))
        why = "attempts at many accounts failed from this network"
        return SignalResult((RiskTerm(self.name, round(value, 1), why),), memory, memory)
