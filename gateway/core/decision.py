"""What the policy decided and what the pipeline makes of it. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Effect = Literal["allow", "deny", "step_up", "login"]
EFFECTS: frozenset[str] = frozenset({"allow", "deny", "step_up", "login"})
# What policy may demand beside a refusal, weakest first. "reverify": every factor anew, at the issuer.
REACTIONS: tuple[str, ...] = ("reverify", "revoke_session", "revoke_subject", "lock_account")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class StepUp:
    """What a step-up has to prove: one of these `amr` values (empty: any factor), at most `max_age_s` seconds ago."""

    methods: tuple[str, ...] = ()
    max_age_s: int = 900


@dataclass(frozen=True, slots=True)
class Obligation:
    """One thing policy demands beside its effect; `params` are the members of the answer's object but `kind`."""

    kind: str
    params: Mapping[str, Any] = field(default=_NOTHING)


@dataclass(frozen=True, slots=True)
class Decision:
    """A policy's answer after the strict parser: an effect, at least one reason code, obligations.

    `cache_s`: seconds for which the same input (its `now` apart) may be answered with this decision again; 0 = never.
    `step_up` says what has to be proven when the effect is "step_up"; `reactions` (of `REACTIONS`) what else happens
    when it is not "allow".
    """

    effect: Effect
    reasons: tuple[str, ...]
    obligations: tuple[Obligation, ...] = ()
    cache_s: int = 0
    step_up: StepUp | None = None
    reactions: tuple[str, ...] = ()


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
