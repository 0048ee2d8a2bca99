"""Risk assessment (stage 7): a sum of named, bounded terms that signals find in the history of person and session.

Laws: terms only add up, none is negative. What is missing or broken (no country data, a clock that was set) is a term
of its own that makes the level "high", never a term less. History is learned from unsuspicious requests and from those
that a second factor proved, never from others. A proof answers the terms it was asked for, where it was asked for them:
elsewhere they count on. On a zero-log route nothing is written, and no history of the person is read.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.core.decision import NO_SIGNAL, RiskReport, RiskTerm
from gateway.core.ports.pipeline import Network
from gateway.core.ports.stores import StoreDown
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.signals import Observation, Scope, Signal
from gateway.core.subject import Device, Identity, Session, subject_key
from gateway.risk.memory import Kind, Remembered, RiskMemory
from gateway.risk.scoring import (
    LoginPattern,
    Thresholds,
    clamp,
    dedupe_novelty,
    digest,
    floor_at_zero,
    keys_of,
    observe,
)

# `amr` values of a login that proved a second factor (RFC 8176, and what identity providers say beside it).
STRONG = frozenset({"face", "fido", "fpt", "hwk", "iris", "mfa", "otp", "sc", "swk", "user", "webauthn"})
LEVELS = ("none", "low", "medium", "high")
_TRIES, _PAUSE_S = 8, 0.003
_MOST_CONTEXTS, _MOST_PENDING = 20_000, 5_000
_STEPPED_S, _BACK_S, _HELD_S, _PROVEN_S, _TOUCH_S = 60.0, 120.0, 300.0, 900.0, 43_200.0
_FLUSH_S, _FLUSH_MOST = 1.0, 32
_LEARNED: tuple[Kind, Kind] = ("subject", "everybody")


_THRESHOLDS = Thresholds()


@dataclass(frozen=True, slots=True)
class _Gate:
    """The assessor's own memory of a session: the last proofs, the terms they answered, and the last write."""

    at: float = 0.0
    elevated: float = 0.0
    signed_in: float = 0.0
    where: str = ""
    until: float = 0.0
    answered: Mapping[str, float] | None = None

    @classmethod
    def read(cls, remembered: Remembered) -> _Gate:
        return cls(**remembered.of("_"))

    def parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name)}


class Assessor:
    """Meets `core.ports.RiskAssessor`. Raises StoreDown, and whatever a signal raises.

    Of a zero-log route nothing is remembered beyond the session. `external_level(identity)`: the level that another
    system gave the person, "" for none. `on_level_raised(session_id)` is called when the level of a session is higher
    than it was here before: what that session has open has to be judged again. An unchanged session (address, JA4,
    User-Agent, proofs) is given its last report again for `reuse_s`.
    """

    def __init__(
        self,
        memory: RiskMemory,
        signals: Sequence[Signal],
        *,
        logins: LoginPattern | None = None,
        thresholds: Thresholds = _THRESHOLDS,
        reuse_s: float = 5.0,
        external_level: Callable[[Identity], Awaitable[str]] | None = None,
        on_level_raised: Callable[[str], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._signals = tuple(signals)
        self._logins = logins
        self._thresholds = thresholds
        self._reuse_s = reuse_s
        self._external_level = external_level
        self._on_level_raised = on_level_raised
        self._clock, self._monotonic = clock, monotonic
        self._last: dict[str, tuple[object, float, RiskReport]] = {}
        self._levels: dict[str, tuple[int, float]] = {}
        self._pending: dict[tuple[Scope, str], list[Observation]] = {}
        self._offset = clock() - monotonic()
        self._distrust_until = self._flush_at = -math.inf

    async def assess(
        self,
        session: Session | None,
        identity: Identity | None,
        device: Device | None,
        facts: RequestFacts,
        network: Network,
        route: Route,
    ) -> RiskReport:
        """The report. Without a session there is no history to compare with, and no report."""
        if session is None or identity is None:
            return NO_SIGNAL
        agent = facts.header("user-agent") or ""
        quiet = route.zero_log
        context = (
            facts.client_ip,
            facts.peer.ja4,
            agent,
            session.elevated_at,
            identity.auth_time,
            network.flaw,
            quiet,
        )
        at = self._monotonic()
        last = self._last.get(session.id)
        if last is not None and at < last[1] and last[0] == context:
            return last[2]
        if self._pending and at >= self._flush_at:
            self._flush_at = at + _FLUSH_S
            await self.flush(_FLUSH_MOST)
        seen = observe(session, identity, device, facts, network, self._clock())
        report = await self._assess(seen, session, identity, quiet=quiet)
        if len(self._last) >= _MOST_CONTEXTS:
            self._last.clear()
            self._levels.clear()
        self._last[session.id] = (context, at + self._reuse_s, report)
        if self._on_level_raised is not None and not quiet and self._has_risen(session.id, report.level, at):
            await self._on_level_raised(session.id)
        return report

    def _has_risen(self, session_id: str, level: str, at: float) -> bool:
        """Whether this is more than it was, and no level was reported just now."""
        now = LEVELS.index(level)
        before, reported_at = self._levels.get(session_id, (now, -math.inf))
        rises = now > before and at >= reported_at + self._reuse_s
        self._levels[session_id] = now, at if rises else reported_at
        return rises

    def invalidate(self) -> None:
        """Something has changed: no report is given a second time."""
        self._last.clear()

    def record_failure(
        self, reason: str, ip: str, network: Network, *, account: str = "", session_id: str = ""
    ) -> None:
        """Somebody failed: to sign in, to prove a factor, to show a good credential. Written by the next `flush`.

        `account` is `subject_key(...)` where the person is known, else whatever tells two accounts (or guesses) apart.
        """
        named = digest(account) if account else ""
        seen = Observation(
            now=self._clock(),
            subject=named,
            session=digest(session_id)[:16] if session_id else "",
            ip=ip,
            network=network,
            failed=reason,
            account=named,
        )
        for scope, key in keys_of(seen).items():
            queue = self._pending.setdefault((scope, key), [])
            if len(self._pending) <= _MOST_PENDING and len(queue) < _MOST_PENDING:
                queue.append(seen)

    async def flush(self, most: int = _MOST_PENDING) -> None:
        """Write what failed since the last time: one write for each network, person and session. Raises StoreDown."""
        for where in list(self._pending)[:most]:
            queue = self._pending.pop(where, [])
            signals = [signal for signal in self._signals if signal.failures and signal.scope == where[0]]
            try:
                for _ in range(_TRIES if signals and queue else 0):
                    remembered = await self._memory.read(*where)
                    parts = dict(remembered.parts)
                    for signal in signals:
                        for seen in queue:
                            parts[signal.name] = signal.assess(seen, parts.get(signal.name, {})).memory
                    if await self._memory.write(remembered, parts):
                        break
            except StoreDown:
                self._pending[where] = [*queue, *self._pending.get(where, ())][:_MOST_PENDING]
                raise

    async def history(self, issuer: str, subject: str) -> Mapping[str, Any]:
        """What is remembered of a person, by signal; empty for somebody who was never seen."""
        remembered = await self._memory.read("subject", digest(subject_key(issuer, subject)))
        return remembered.parts

    async def forget(self, issuer: str, subject: str) -> bool:
        """Forget a person's history; whether there was one."""
        return await self._memory.forget("subject", digest(subject_key(issuer, subject)))

    # ---- one assessment ----

    async def _assess(self, seen: Observation, session: Session, identity: Identity, *, quiet: bool) -> RiskReport:
        keys = {scope: key for scope, key in keys_of(seen).items() if not quiet or scope == "session"}
        level = "" if self._external_level is None else await self._external_level(identity)
        external = self._external_terms(level)
        report = NO_SIGNAL
        # Who writes the session first has the sign-in to learn from, once, whatever else comes in at the same time.
        written: dict[Kind, Remembered] = {}
        for attempt in range(_TRIES):
            await asyncio.sleep(attempt * _PAUSE_S)
            known: dict[Kind, Remembered] = {}
            for scope, key in keys.items():
                known[scope] = await self._memory.read(scope, key, quiet=quiet)
            known |= {kind: before for kind, before in written.items() if kind in known}
            if self._logins is not None and not quiet and _is_open(known["session"]):
                known["everybody"] = await self._memory.read("everybody", "logins")
            report, changed = self._judge(seen, session, identity, known, external)
            for kind in sorted(changed.keys() - written.keys(), key=lambda kind: kind != "session"):
                if await self._memory.write(known[kind], changed[kind], quiet=quiet):
                    written[kind] = known[kind]
                elif kind == "session":
                    break
            if changed.keys() <= written.keys():
                break
        return report

    def _judge(
        self,
        seen: Observation,
        session: Session,
        identity: Identity,
        known: Mapping[Kind, Remembered],
        external: Sequence[RiskTerm],
    ) -> tuple[RiskReport, dict[Kind, Mapping[str, Any]]]:
        """The report, and the documents that changed."""
        first = not known["session"].parts
        gate = _Gate.read(known["session"])
        strong = not STRONG.isdisjoint(identity.amr)
        seen = replace(seen, first=first)
        terms = self._doubts(seen, gate, identity, known, strong=strong)
        sightings = []
        for signal in self._signals:
            if signal.scope in known:
                sighting = signal.assess(seen, known[signal.scope].of(signal.name))
                terms += clamp(signal, sighting.terms)
                sightings.append((signal, sighting))
        sign_in = self._sign_in(seen, known)
        terms = [*dedupe_novelty(terms, sign_in), *sign_in, *external]
        elevated, signed_in = session.elevated_at or 0.0, (identity.auth_time or 0.0) if strong else 0.0
        proven = elevated > gate.elevated or (not first and signed_in > gate.signed_in)
        where = digest(f"{seen.place}|{seen.ja4_b}|{seen.agent}")[:16]
        if proven:
            answers = {term.name: term.value for term in terms}
            gate = _Gate(
                seen.now, elevated, signed_in, where, max(session.elevated_until or 0.0, seen.now + _PROVEN_S), answers
            )
        elif first:
            gate = _Gate(seen.now, elevated, signed_in)
        report = self._report(terms, gate, where, seen.now)
        learn = proven or report.level in {"none", "low"} or (first and strong and report.level != "high")
        parts: dict[Kind, dict[str, Any]] = {}
        for signal, sighting in sightings:
            remembered = known[signal.scope]
            memory = sighting.learned if learn else sighting.memory
            if memory is not remembered.parts.get(signal.name) and memory != remembered.of(signal.name):
                parts.setdefault(signal.scope, dict(remembered.parts))[signal.name] = memory
        self._note_sign_in(seen, known, parts, () if proven else sign_in, learn=learn)
        if first or proven or "session" in parts or seen.now - gate.at > _TOUCH_S:
            parts.setdefault("session", dict(known["session"].parts))["_"] = replace(gate, at=seen.now).parts()
        if learn and "subject" in known and not known["subject"].of("_"):
            parts.setdefault("subject", dict(known["subject"].parts))["_"] = {"since": seen.now}
        return report, dict(parts)

    def _sign_in(self, seen: Observation, known: Mapping[Kind, Remembered]) -> list[RiskTerm]:
        """What the sign-in behind this session looked like: scored at its first sight, then carried along."""
        if self._logins is not None and seen.first and "everybody" in known:
            terms = self._logins.score(seen, known["subject"].of("login"), known["everybody"].of("login"))
            return floor_at_zero(terms)
        return [RiskTerm(*term) for term in known["session"].of("login").get("terms", ())]

    def _note_sign_in(
        self,
        seen: Observation,
        known: Mapping[Kind, Remembered],
        parts: dict[Kind, dict[str, Any]],
        terms: Sequence[RiskTerm],
        *,
        learn: bool,
    ) -> None:
        """Learn from the sign-in when it is believed, once; until then it stays open."""
        if self._logins is None or "everybody" not in known:
            return
        if learn:
            profile, population = known["subject"].of("login"), known["everybody"].of("login")
            learned = self._logins.learn(seen, profile, population)
            for kind, before, after in zip(_LEARNED, (profile, population), learned, strict=True):
                if after is not before:
                    parts.setdefault(kind, dict(known[kind].parts))["login"] = after
        document = {"open": not learn, "terms": [[term.name, term.value, term.why] for term in terms]}
        if document != known["session"].of("login"):
            parts.setdefault("session", dict(known["session"].parts))["login"] = document

    def _report(self, terms: Sequence[RiskTerm], gate: _Gate, where: str, now: float) -> RiskReport:
        """The terms that no proof has answered, their sum, and its level."""
        answered = gate.answered if gate.answered and gate.where == where and now < gate.until else {}
        open_terms = tuple(
            sorted(
                (term for term in terms if term.value > answered.get(term.name, 0.0)),
                key=lambda term: (-term.value, term.name),
            )
        )
        if not open_terms:
            return NO_SIGNAL
        score = round(math.fsum(term.value for term in open_terms), 3)
        return RiskReport(score, self._thresholds.level(score), open_terms)

    def _doubts(
        self,
        seen: Observation,
        gate: _Gate,
        identity: Identity,
        known: Mapping[Kind, Remembered],
        *,
        strong: bool,
    ) -> list[RiskTerm]:
        """What is missing or cannot be right: each a reason for a step-up of its own."""
        terms = []
        if seen.network.flaw and not seen.at_home:
            terms.append(RiskTerm("network_data", self._thresholds.high, f"the network data are {seen.network.flaw}"))
        if seen.now < gate.at - _BACK_S or self._clock_was_set():
            terms.append(RiskTerm("clock_set", self._thresholds.high, "the clock of the gateway was set"))
        # A program has no second factor: its first request begins its history.
        is_person = identity.kind == "session" or identity.auth_time is not None
        if "subject" in known and is_person and not strong and not known["subject"].of("_"):
            terms.append(RiskTerm("no_history", self._thresholds.high, "nothing is known of this person yet"))
        return terms

    def _external_terms(self, level: str) -> list[RiskTerm]:
        """What another system says of the person; a level that is not known here counts as the highest."""
        if not level:
            return []
        values = {"low": self._thresholds.low, "medium": self._thresholds.medium}
        return [RiskTerm("outside", values.get(level, self._thresholds.high), "another system says so")]

    def _clock_was_set(self) -> bool:
        """Whether the clock ran differently from the machine's own counter a few minutes ago or less."""
        at = self._monotonic()
        offset = self._clock() - at
        if abs(offset - self._offset) > _STEPPED_S:
            self._offset, self._distrust_until = offset, at + _HELD_S
        return at < self._distrust_until


def _is_open(session: Remembered) -> bool:
    """Whether the sign-in behind a session was not learned from yet."""
    return not session.parts or session.of("login").get("open", False) is True
