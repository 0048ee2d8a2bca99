"""Second factors of people: enrolment, proof, removal. Raises StoreDown.

Laws: a question is answered once. An answer is counted as wrong before it is looked at, so that many at the same time
are not more than many in turn. What a proof uses up (a time step, a recovery code, a sign count) is written before the
proof is believed, over what it was judged by and nothing else. Who has a factor adds and removes with a proof only.

Collections: `factors` (key: the owner's digest; all of a person's factors in one document, so that every change is one
compare-and-set), `factor_step` (what waits for an answer; group: the owner), `factor_attempts` (key: owner and kind).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gateway.core.cookies import digest, is_value
from gateway.core.factors import Factor, FactorOwner
from gateway.core.ports.documents import Documents
from gateway.core.reasons import Refusal
from gateway.identity.factors.lockout import Lockout
from gateway.state.collection import Codec, Collection

FACTORS, STEPS, ATTEMPTS = "factors", "factor_step", "factor_attempts"
CHALLENGE_LIFE_S, ENROLMENT_LIFE_S, PROOF_LIFE_S = 300.0, 600.0, 300.0
FAILURES, ENROLMENTS = 5, 20  # in five minutes
MOST_FACTORS, MOST_STEPS = 20, 10
_NEVER = 253_402_300_799.0  # the last second of the year 9999
_LABEL_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class EnrolledFactor:
    """A factor as its owner sees it. Times are seconds since the epoch; `about` is what the kind says of it."""

    id: str
    kind: str
    label: str
    created_at: float
    used_at: float | None
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PendingChallenge:
    """A question to a person. `id` comes back with the answer, before `expires_at`; `show` is for their page alone."""

    id: str = field(repr=False)
    kind: str
    expires_at: float
    show: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """A person proved a factor at `at`. `amr` are the RFC 8176 values it earned."""

    issuer: str
    subject: str
    factor_id: str
    kind: str
    amr: tuple[str, ...]
    at: float


@dataclass(frozen=True, slots=True)
class _Kept:
    """A factor as the store has it."""

    id: str
    kind: str
    label: str
    created_at: float
    used_at: float | None
    state: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Step:
    """What waits for an answer. `proved_by` is the factor that allowed an enrolment, "" for none."""

    owner: str
    what: str  # "enrol" | "challenge"
    kind: str
    expires_at: float
    pending: Mapping[str, Any] = field(repr=False)
    proved_by: str = ""
    tries: int = 1


_FACTORS: Codec[tuple[_Kept, ...]] = Codec(
    encode=lambda factors: json.dumps([asdict(factor) for factor in factors], separators=(",", ":")).encode(),
    decode=lambda value: tuple(_Kept(**item) for item in json.loads(value)),
)
_STEPS: Codec[_Step] = Codec(
    encode=lambda step: json.dumps(asdict(step), separators=(",", ":")).encode(),
    decode=lambda value: _Step(**json.loads(value)),
)


class Factors:
    """The factors of everybody. `factors` are the plugins by kind, the strongest first; `kinds` has them."""

    def __init__(self, documents: Documents, factors: Mapping[str, Factor], clock: Callable[[], float]) -> None:
        self._factors = Collection(documents=documents, name=FACTORS, codec=_FACTORS, clock=clock)
        self._steps = Collection(documents=documents, name=STEPS, codec=_STEPS, clock=clock)
        self.kinds: Mapping[str, Factor] = dict(factors)
        self._clock = clock
        self._attempts = Lockout(documents, ATTEMPTS, "factor_locked", clock)

    async def enrolled(self, owner: FactorOwner) -> Sequence[EnrolledFactor]:
        """A person's factors, oldest first; of kinds that are switched off too, they cannot be proven."""
        kept = await self._factors.get(_key(owner)) or ()
        return [self._seen(factor) for factor in kept]

    # ---- enrolment ----

    async def begin_enrolment(
        self, owner: FactorOwner, kind: str, proof: Proof | None = None
    ) -> PendingChallenge | Refusal:
        """Begin to add a factor, or to replace the one there is of a kind of which a person has one.

        Refusals: `factor_unknown` for a kind there is not, `factor_proof_missing` when there is a factor already and
        `proof` is not a fresh one of it, `factor_limit`, `factor_locked` for too many begun ones.
        """
        plugin = self.kinds.get(kind)
        if plugin is None:
            return Refusal("factor_unknown", "no such kind")
        factors = await self._factors.get(_key(owner)) or ()
        proved_by = self._proved_by(owner, proof)
        if refusal := _may_change(factors, proved_by) or _is_full(factors):
            return refusal
        if locked := await self._attempts.count(_key(owner), ENROLMENTS):
            return locked
        now = self._clock()
        begun = await asyncio.to_thread(plugin.enrol_begin, owner, _states(factors, kind), now)
        step = _Step(
            owner=_key(owner),
            what="enrol",
            kind=kind,
            expires_at=now + ENROLMENT_LIFE_S,
            pending=begun.pending,
            proved_by=proved_by,
            tries=plugin.enrol_tries,
        )
        return PendingChallenge(await self._wait_for(step), kind, step.expires_at, begun.show)

    async def finish_enrolment(
        self, owner: FactorOwner, step_id: str, answer: Mapping[str, Any], label: str = ""
    ) -> EnrolledFactor | Refusal:
        """Add the factor. Where the kind allows it, a wrong answer may be followed by another to the same question.

        Refusals: `factor_invalid`, `factor_expired`, `factor_unknown`, `factor_proof_missing`, `factor_limit`.
        """
        step = await self._take(owner, step_id, "enrol")
        if step is None:
            return Refusal("factor_expired")
        plugin = self.kinds.get(step.kind)
        if plugin is None:
            return Refusal("factor_unknown", "no such kind")
        async for entry in self._factors.attempts(_key(owner)):
            now, factors = self._clock(), entry.value or ()
            if refusal := _may_change(factors, step.proved_by) or _is_full(factors):
                return refusal
            state = await asyncio.to_thread(plugin.enrol_finish, step.pending, _states(factors, step.kind), answer, now)
            if isinstance(state, Refusal):
                if step.tries > 1:
                    await self._put_step(step_id, replace(step, tries=step.tries - 1))
                return state
            new = _Kept(secrets.token_urlsafe(12), step.kind, _label(label), now, None, state)
            left = [factor for factor in factors if plugin.many or factor.kind != new.kind]
            if await self._factors.replace(entry, (*left, new), _NEVER):
                await self._attempts.forget(_key(owner))
                return self._seen(new)
        return Refusal("factor_invalid", "too much at the same time")

    # ---- proof ----

    async def begin_challenge(self, owner: FactorOwner, kind: str) -> PendingChallenge | Refusal:
        """Ask a person for a proof of a factor of this kind. Refusals: `factor_unknown`, `factor_locked`."""
        plugin = self.kinds.get(kind)
        kept = await self._factors.get(_key(owner)) or ()
        states = _states(kept, kind)
        if plugin is None or not states:
            return Refusal("factor_unknown")
        if locked := await self._attempts.locked(f"{_key(owner)}|{kind}"):
            return locked
        now = self._clock()
        begun = await asyncio.to_thread(plugin.challenge_begin, states, now)
        step = _Step(_key(owner), "challenge", kind, now + CHALLENGE_LIFE_S, begun.pending)
        return PendingChallenge(await self._wait_for(step), kind, step.expires_at, begun.show)

    async def finish_challenge(self, owner: FactorOwner, step_id: str, answer: Mapping[str, Any]) -> Proof | Refusal:
        """Judge the answer to a challenge; whatever comes of it, that challenge is over.

        Refusals: `factor_invalid`, `factor_replayed`, `factor_locked`, `factor_expired`, `factor_unknown`.
        """
        step = await self._take(owner, step_id, "challenge")
        if step is None:
            return Refusal("factor_expired")
        plugin = self.kinds.get(step.kind)
        if plugin is None:
            return Refusal("factor_unknown", "no such kind")
        if locked := await self._attempts.count(f"{step.owner}|{step.kind}", FAILURES):
            return locked
        proof = await self._prove(owner, plugin, step, answer)
        if isinstance(proof, Proof):
            await self._attempts.forget(f"{step.owner}|{step.kind}")
        return proof

    async def _prove(
        self, owner: FactorOwner, plugin: Factor, step: _Step, answer: Mapping[str, Any]
    ) -> Proof | Refusal:
        async for entry in self._factors.attempts(_key(owner)):
            now, factors = self._clock(), entry.value or ()
            of_kind = [factor for factor in factors if factor.kind == step.kind]
            if not of_kind:
                return Refusal("factor_unknown")
            states = [factor.state for factor in of_kind]
            proof = await asyncio.to_thread(plugin.challenge_finish, step.pending, states, answer, now)
            if isinstance(proof, Refusal):
                return proof
            used = replace(of_kind[proof.index], state=proof.state, used_at=now)
            changed = tuple(used if factor.id == used.id else factor for factor in factors)
            if await self._factors.replace(entry, changed, _NEVER):
                return Proof(owner.issuer, owner.subject, used.id, used.kind, proof.amr, now)
        return Refusal("factor_invalid", "too much at the same time")

    # ---- the end ----

    async def remove(self, owner: FactorOwner, factor_id: str, proof: Proof | None) -> Refusal | None:
        """Remove a factor; None when it is gone. Refusals: `factor_unknown`, `factor_proof_missing`."""
        proved_by = self._proved_by(owner, proof)

        async for entry in self._factors.attempts(_key(owner)):
            factors = entry.value or ()
            left = tuple(factor for factor in factors if factor.id != factor_id)
            if len(left) == len(factors):
                return Refusal("factor_unknown")
            if refusal := _may_change(factors, proved_by):
                return refusal
            if await self._factors.replace(entry, left, _NEVER):
                return None
        return Refusal("factor_invalid", "too much at the same time")

    async def forget(self, owner: FactorOwner) -> bool:
        """Remove all of a person's factors, for an operator who knows that it is them; whether there were any."""
        return await self._factors.delete(_key(owner))

    # ---- the store ----

    def _proved_by(self, owner: FactorOwner, proof: Proof | None) -> str:
        """The factor of a proof that is fresh and this person's, "" for none."""
        if proof is None or (proof.issuer, proof.subject) != (owner.issuer, owner.subject):
            return ""
        return proof.factor_id if abs(self._clock() - proof.at) <= PROOF_LIFE_S else ""

    def _seen(self, factor: _Kept) -> EnrolledFactor:
        plugin = self.kinds.get(factor.kind)
        about = {} if plugin is None else plugin.describe(factor.state)
        return EnrolledFactor(factor.id, factor.kind, factor.label, factor.created_at, factor.used_at, about)

    async def _wait_for(self, step: _Step) -> str:
        """Keep a step until it is answered, under a fresh id. Of too many the oldest go."""
        waiting = await self._steps.list(step.owner)
        for old in waiting[: max(0, len(waiting) - MOST_STEPS + 1)]:
            await self._steps.delete(old.key)
        step_id = secrets.token_urlsafe(32)
        await self._put_step(step_id, step)
        return step_id

    async def _put_step(self, step_id: str, step: _Step) -> None:
        await self._steps.add(digest(step_id), step, step.expires_at, group=step.owner)

    async def _take(self, owner: FactorOwner, step_id: str, what: str) -> _Step | None:
        """The step of this id, which waits no longer; None when it is not (any more), or not this person's."""
        if not is_value(step_id):
            return None
        key = digest(step_id)
        step = await self._steps.get(key)
        if step is None or (step.owner, step.what) != (_key(owner), what):
            return None  # looked at before it is taken: nobody ends the step of another
        return await self._steps.take(key)


def _may_change(kept: Sequence[_Kept], proved_by: str) -> Refusal | None:
    """Whoever has no factor may add the first; all else needs a proof of one that is still there."""
    if not kept or any(factor.id == proved_by for factor in kept):
        return None
    return Refusal("factor_proof_missing")


def _is_full(kept: Sequence[_Kept]) -> Refusal | None:
    return Refusal("factor_limit") if len(kept) >= MOST_FACTORS else None


def _states(kept: Sequence[_Kept], kind: str) -> list[Mapping[str, Any]]:
    return [factor.state for factor in kept if factor.kind == kind]


def _key(owner: FactorOwner) -> str:
    return owner.handle.hex()


def _label(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).strip()[:_LABEL_CHARACTERS]
