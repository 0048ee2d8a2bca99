"""What the policy decided and what the pipeline makes of it. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Effect = Literal["allow", "deny", "step_up", "login"]
EFFECTS: frozenset[str] = frozenset({"allow", "deny", "step_up", "login"})
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Obligation:
    """One thing policy demands beside its effect; `params` are the members of the answer's object but `kind`."""

    kind: str
    params: Mapping[str, Any] = field(default=_NOTHING)


@dataclass(frozen=True, slots=True)
class Decision:
    """A policy's answer after the strict parser: an effect, at least one reason code, obligations.

    `cache_s`: seconds for which the same input (its `now` apart) may be answered with this decision again; 0 = never.
    """

    effect: Effect
    reasons: tuple[str, ...]
    obligations: tuple[Obligation, ...] = ()
    cache_s: int = 0


@dataclass(frozen=True, slots=True)
class RiskTerm:
    """A named, bounded share of the risk score."""

    name: str
    value: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class RiskReport:
    """The risk of the moment: the terms sum to `score` (natural-log odds, 0 = no signal)."""

    score: float = 0.0
    level: Literal["none", "low", "medium", "high"] = "none"
    terms: tuple[RiskTerm, ...] = ()

    def document(self) -> dict[str, Any]:
        """The report as policy sees it."""
        return {
            "score": self.score,
            "level": self.level,
            "terms": [{"name": term.name, "value": term.value, "why": term.why} for term in self.terms],
        }


NO_SIGNAL = RiskReport()
