"""Risk scoring: a request becomes an observation, and the terms of signals become a score. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_network
from typing import Any, Literal, Protocol

from gateway.core.decision import RiskTerm
from gateway.core.ports.pipeline import Network
from gateway.core.request import RequestFacts
from gateway.core.signals import Observation, Scope, Signal
from gateway.core.subject import Device, Identity, Session, subject_key

_BRANDS = re.compile(r'"([^"]{1,60})";v=')
_LOGIN_BOUND = 8.0
_NOVELTIES = frozenset({"new_network", "new_device"})
_SCOPES: tuple[Scope, ...] = ("session", "subject", "network")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The scores at which a level begins."""

    low: float = 1.0
    medium: float = 2.0
    high: float = 4.0

    def level(self, score: float) -> Literal["none", "low", "medium", "high"]:
        """The level of a score."""
        if score >= self.high:
            return "high"
        return "medium" if score >= self.medium else "low" if score >= self.low else "none"


class LoginPattern(Protocol):
    """Scores a sign-in against what this person does, and what everybody does. Pure: JSON goes in and comes out.

    `profile` and `population` are empty at first; neither is changed. Raising is `risk_unavailable`.
    """

    def score(self, seen: Observation, profile: Mapping[str, Any], population: Mapping[str, Any]) -> Sequence[RiskTerm]:
        """The terms of a sign-in (natural-log odds, of either sign); their names begin with "login_"."""

    def learn(
        self, seen: Observation, profile: Mapping[str, Any], population: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Profile and population with a sign-in that was believed."""


def digest(text: str) -> str:
    """What stands for a name in the store."""
    return sha256(f"gateway/v1/risk|{text}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def keys_of(seen: Observation) -> dict[Scope, str]:
    """Where each scope's memory of an observation is; what is not known has none."""
    network = ""
    if seen.ip:
        network = str(ip_network(f"{seen.ip}/{48 if ':' in seen.ip else 24}", strict=False))
    found = dict(zip(_SCOPES, (seen.session, seen.subject, network), strict=True))
    return {scope: key for scope, key in found.items() if key}


def observe(
    session: Session, identity: Identity, device: Device | None, facts: RequestFacts, network: Network, now: float
) -> Observation:
    """One request as signals see it."""
    brands = sorted(name for name in _BRANDS.findall(facts.header("sec-ch-ua") or "") if "Not" not in name)
    hints = "|".join([*brands, facts.header("sec-ch-ua-platform") or "", facts.header("sec-ch-ua-mobile") or ""])
    return Observation(
        now=now,
        subject=digest(subject_key(identity.issuer, identity.subject)),
        session=digest(session.id)[:16],
        kind=identity.kind,
        # A cookie that a key of the browser renews can be copied for as long as it is good.
        bound=any(name != "dbsc" for name in session.bound_by),
        device_id=device.id if device is not None else "",
        ip=facts.client_ip,
        network=network,
        ja4=facts.peer.ja4,
        agent=facts.header("user-agent") or "",
        hints=hints.strip("|"),
        protocol=facts.protocol,
    )


def floor_at_zero(terms: Sequence[RiskTerm]) -> list[RiskTerm]:
    """The terms that speak against a sign-in, less what speaks for it, down to nothing.

    Raises ValueError for one that is no number or somebody else's.
    """
    if not all(math.isfinite(term.value) and term.name.startswith("login_") for term in terms):
        raise ValueError("the login pattern breaks its contract")
    against = math.fsum(term.value for term in terms if term.value > 0)
    total = min(math.fsum(term.value for term in terms), _LOGIN_BOUND)
    if total <= 0:
        return []
    scaled = [RiskTerm(term.name, round(term.value * total / against, 3), term.why) for term in terms if term.value > 0]
    return [term for term in scaled if term.value > 0]


def dedupe_novelty(terms: Sequence[RiskTerm], sign_in: Sequence[RiskTerm]) -> list[RiskTerm]:
    """The terms of signals; what is new at a sign-in is in its pattern already, and counts beyond that alone."""
    unexplained, terms_left = math.fsum(term.value for term in sign_in), []
    for term in terms:
        known = min(unexplained, term.value) if term.name in _NOVELTIES else 0.0
        unexplained -= known
        if term.value > known:
            terms_left.append(RiskTerm(term.name, round(term.value - known, 3), term.why) if known else term)
    return terms_left


def clamp(signal: Signal, terms: Sequence[RiskTerm]) -> list[RiskTerm]:
    """A signal's terms, held to its bound. Raises ValueError for one that is negative, no number or somebody else's."""
    left, clamped = signal.bound, []
    for term in terms:
        is_own = term.name == signal.name or term.name.startswith(f"{signal.name}_")
        if not is_own or not math.isfinite(term.value) or term.value < 0:
            raise ValueError(f"{signal.name} breaks its contract")
        value = round(min(term.value, left), 3)
        left -= value
        if value > 0:
            clamped.append(RiskTerm(term.name, value, term.why))
    return clamped
