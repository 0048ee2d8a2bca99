"""One world, lived through by the real assessor, by the login pattern alone and by both baselines."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import quantiles
from typing import Any, NamedTuple

from bench.detection_baselines import CountryNeverSeen, Freeman
from bench.detection_memory import Memory
from bench.detection_places import dice_of
from bench.detection_shifts import Shifts
from bench.detection_travellers import Travellers
from bench.detection_world import SignIn, Who, World
from gateway.core.decision import RiskReport
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.signals import Observation
from gateway.core.subject import Identity, Session
from gateway.risk.assessor import Assessor
from gateway.risk.login_pattern import LoginPatternModel
from gateway.risk.memory import COLLECTIONS, RiskMemory
from plugins.signals import builtin

ISSUER = "https://id.example.com"
_SENSITIVE = 0.5
_ROUTE = Route("bench", "bench.example")


class Judged(NamedTuple):
    """One sign-in: how many the person had before, the scores, and the level that the assessor gave."""

    who: Who
    history: int
    assessed: float
    pattern: float
    country: float
    freeman: float
    level: str


@dataclass
class Run:
    """A world's sign-ins, and what they cost: microseconds of processor, so that nobody else's work counts."""

    seed: int
    world: str = "office"
    judged: list[Judged] = field(default_factory=list)
    scoring_us: list[float] = field(default_factory=list)
    assessing_us: list[float] = field(default_factory=list)
    profile_bytes: int = 0
    population_bytes: int = 0

    def p99_us(self, times: list[float]) -> float:
        """The 99th of a hundred."""
        return quantiles(times, n=100)[98]


class Gate:
    """The assessor as the gateway wires it, over state in memory, on a clock of its own."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.now = 0.0
        store = RiskMemory(memory, lambda: self.now)
        clocks = {"clock": lambda: self.now, "monotonic": lambda: self.now}
        self.assessor = Assessor(store, builtin(), logins=LoginPatternModel(), reuse_s=0.0, **clocks)

    async def assess(self, seen: Observation, session: Session, *amr: str) -> RiskReport:
        """The report for a request that looks like this, of somebody who signed in when the session began."""
        identity = Identity(
            ISSUER, seen.subject, "session", session.id, self.now + 9e5, amr=amr, auth_time=session.created_at
        )
        return await self.assessor.assess(session, identity, None, facts_of(seen), seen.network, _ROUTE)


def facts_of(seen: Observation, *more: tuple[str, str], host: str = "wiki.example.com") -> RequestFacts:
    """A request with this address, JA4, User-Agent and client hints."""
    headers = [("user-agent", seen.agent), *more]
    if seen.hints:
        *brands, platform, mobile = seen.hints.split("|")
        headers += [
            ("sec-ch-ua", ", ".join(f'"{brand}";v="1"' for brand in brands)),
            ("sec-ch-ua-platform", platform),
            ("sec-ch-ua-mobile", mobile),
        ]
    peer = Peer(seen.ip, 4711, ja4=seen.ja4)
    return RequestFacts("GET", host, "/", (), "", (), tuple(headers), "h2", 0, peer, seen.ip)


WORLDS: Mapping[str, Callable[[int, int, int], World | Travellers | Shifts]] = {
    "office": World,
    "travellers": Travellers,
    "shifts": Shifts,
}


def lived(seed: int, people: int, days: int, world: str = "office") -> Run:
    """Everything that happens in the world of this seed and make."""
    run = Run(seed, world)
    happened = WORLDS[world](seed, people, days).sign_ins()
    gc.freeze()
    try:
        alone = _alone(run, happened)
        assessed = asyncio.run(_assessed(run, happened))
    finally:
        gc.unfreeze()
    for sign_in, (history, *scores), report in zip(happened, alone, assessed, strict=True):
        run.judged.append(Judged(sign_in.who, history, report.score, *scores, report.level))
    return run


def _alone(run: Run, happened: list[SignIn]) -> list[tuple[int, float, float, float]]:
    """History, and the scores of the login pattern and of the baselines, each learning from every honest sign-in."""
    logins, country, freeman = LoginPatternModel(), CountryNeverSeen(), Freeman()
    profiles: dict[int, Mapping[str, Any]] = {}
    everybody: Mapping[str, Any] = {}
    count: Counter[int] = Counter()
    scores = []
    for sign_in in happened:
        seen, profile = sign_in.seen, profiles.get(sign_in.person, {})
        started = time.thread_time_ns()
        score = sum(term.value for term in logins.score(seen, profile, everybody))
        run.scoring_us.append((time.thread_time_ns() - started) / 1000)
        scores.append((count[sign_in.person], score, country.score(seen), freeman.score(seen)))
        if sign_in.who == "honest":
            profiles[sign_in.person], everybody = logins.learn(seen, profile, everybody)
            country.learn(seen)
            freeman.learn(seen)
            count[sign_in.person] += 1
    return scores


async def _assessed(run: Run, happened: list[SignIn]) -> list[RiskReport]:
    """The report of each sign-in, as the assessor gives it at the session's first request.

    The first sign-in of all brings a second factor, as an account is set up; later ones are a password's. Who is asked
    proves a factor, and is learned from then. At the level medium half of the people come by a service that asks.
    Attackers prove nothing, and nothing is learned from them.
    """
    memory = Memory()
    gate = Gate(memory)
    dice = dice_of(run.seed)
    known: set[int] = set()
    reports = []
    for number, sign_in in enumerate(happened):
        seen = sign_in.seen
        gate.now = max(gate.now, seen.now)
        session = Session(f"s{number}", gate.now)
        memory.is_frozen = sign_in.who != "honest"
        amr = ("pwd",) if sign_in.person in known or memory.is_frozen else ("pwd", "otp")
        started = time.thread_time_ns()
        report = await gate.assess(seen, session, *amr)
        run.assessing_us.append((time.thread_time_ns() - started) / 1000)
        reports.append(report)
        if not memory.is_frozen:
            known.add(sign_in.person)
            if report.level == "high" or (report.level == "medium" and dice.random() < _SENSITIVE):
                proven = replace(session, elevated_at=gate.now + 1, elevated_until=gate.now + 900)
                await gate.assess(seen, proven, *amr)
        if number % 5_000 == 0:
            memory.drop(COLLECTIONS["session"])
    run.profile_bytes = max(len(item.value) for (name, _), (item, _) in memory.kept.items() if name == "risk_profile")
    everybody = await memory.get(COLLECTIONS["everybody"], "logins", gate.now)
    run.population_bytes = 0 if everybody is None else len(everybody.value)
    return reports
