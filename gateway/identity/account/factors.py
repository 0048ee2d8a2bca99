"""What people do about their own second factors: look at them, add one, remove one.

Law: whoever has a factor changes nothing without a fresh proof of one, given in this very session; whoever has none
adds the first within five minutes of the sign-in. Nothing happens for a form that the gateway's own page did not send.
Raises StoreDown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlencode

from gateway.core import paths
from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.identity.account.sessions import Mine, OwnSessions
from gateway.identity.account.step_up import StepUps, answer_of, named, owner_of, shown, would_do
from gateway.identity.factors.store import MOST_FACTORS, PROOF_LIFE_S, EnrolledFactor, Factors, PendingChallenge, Proof
from gateway.identity.login.flow import Login, fields_of
from gateway.identity.login.pending_requests import PendingRequest, PendingRequests
from gateway.identity.login.return_ticket import ReturnTickets
from gateway.identity.sessions.login_sessions import LoginSession


@dataclass(frozen=True, slots=True)
class Overview:
    """A person's factors, and what they may do about them now.

    `addable` are kinds, each with whether a new one replaces the one there is. `needs_proof`: nothing may be changed
    before a proof of one of `provable`. `asked` is the question for that proof and `begun` an enrolment, where one is
    under way; `error` says why the last attempt came to nothing.
    """

    login: LoginSession
    factors: Sequence[EnrolledFactor]
    addable: Sequence[tuple[str, bool]]
    needs_proof: bool
    provable: Sequence[str]
    held: PendingRequest | None
    csrf: str = field(repr=False)
    asked: PendingChallenge | None = None
    begun: PendingChallenge | None = None
    error: str = ""

    def document(self) -> dict[str, Any]:
        """The model of the page "factors".

        `name`, `email`; `factors` [{id, kind, label, created_at, used_at, about}]; `addable` [{kind, replaces}];
        `needs_proof`, `provable` [kind]; `challenge` and `enrolment` {kind, step, expires_at, show} or None; `csrf`,
        `held` ("" for none), `action`, `back` (an address), `error` (a reason code or None).
        """
        held = "" if self.held is None else self.held.id
        return {
            **named(self.login),
            "factors": [{**asdict(factor), "about": dict(factor.about)} for factor in self.factors],
            "addable": [{"kind": kind, "replaces": replaces} for kind, replaces in self.addable],
            "needs_proof": self.needs_proof,
            "provable": list(self.provable),
            "challenge": shown(self.asked),
            "enrolment": shown(self.begun),
            "csrf": self.csrf,
            "held": held,
            "action": paths.FACTORS,
            "back": f"{paths.STEP_UP}?{urlencode({'held': held})}" if held else paths.ME,
            "error": self.error or None,
        }


@dataclass(frozen=True, slots=True)
class FactorChanged:
    """Something happened to the factor `kind`: `what` is "added", "removed" or "proven"; `redirect` leads on."""

    login: LoginSession
    what: str
    kind: str
    redirect: Redirect


type Outcome = FactorChanged | Overview | Redirect | Refusal


@dataclass(frozen=True, slots=True)
class _Visit:
    """A form that the gateway's own page sent."""

    facts: RequestFacts
    device: Device | None
    mine: Mine
    held: PendingRequest | None
    form: Mapping[str, str]

    @property
    def login(self) -> LoginSession:
        return self.mine.current


class OwnFactors:
    """For the page on the gateway's own host."""

    def __init__(
        self,
        factors: Factors,
        step_ups: StepUps,
        login: Login,
        held: PendingRequests,
        handover: ReturnTickets,
        own: OwnSessions,
        clock: Callable[[], float],
    ) -> None:
        self._factors = factors
        self._step_ups = step_ups
        self._login = login
        self._held = held
        self._handover = handover
        self._own = own
        self._clock = clock

    async def look(self, facts: RequestFacts, device: Device | None) -> Overview | Refusal:
        """`GET /.gateway/factors[?held=...]`. Refusals: `malformed_request`, those of `OwnSessions.mine`."""
        query = fields_of(facts, ("held",))
        if query is None:
            return Refusal("malformed_request", "query")
        account = await self._own.mine(facts, device)
        if isinstance(account, Refusal):
            return account
        waiting = await self._step_ups.held_for(account.current, query.get("held", ""))
        return await self._overview(account, waiting)

    async def act(self, facts: RequestFacts, device: Device | None, form: Mapping[str, str]) -> Outcome:
        """`POST /.gateway/factors` with `csrf`, `action` and, where a request waits, `held`.

        `begin` (`kind`) and `finish` (`kind`, `step`, `label`, an answer) add a factor, `ask` (`kind`) and `prove`
        (`step`, an answer) confirm one, `remove` (`id`) removes one. What does not succeed leads to the page again, a
        first factor long after the sign-in to a new sign-in. Refusals: `malformed_request`, `csrf_refused`, those of
        `OwnSessions.mine`.
        """
        mine = await self._own.allowed(facts, device, form)
        if isinstance(mine, Refusal):
            return mine
        held = await self._step_ups.held_for(mine.current, form.get("held", ""))
        visit = _Visit(facts, device, mine, held, form)
        actions = {
            "begin": self._begin,
            "finish": self._finish,
            "ask": self._ask,
            "prove": self._prove,
            "remove": self._remove,
        }
        act = actions.get(form.get("action", ""))
        return Refusal("malformed_request", "action") if act is None else await act(visit)

    # ---- the actions ----

    async def _begin(self, visit: _Visit) -> Outcome:
        owner, kind = owner_of(visit.login), visit.form.get("kind", "")
        plugin = self._factors.kinds.get(kind)
        if not await self._factors.enrolled(owner):
            refusal = self._step_ups.first_factor(visit.login)
            if refusal is None and plugin is not None and not plugin.enrol_amr:
                refusal = Refusal("factor_proof_missing", "of use beside another factor only")
            if refusal is not None:
                return (
                    await self._sign_in_anew(visit)
                    if refusal.reason == "auth_stale"
                    else await self._no(visit, refusal)
                )
        begun = await self._factors.begin_enrolment(owner, kind, await self._step_ups.proof_of(visit.login))
        if isinstance(begun, Refusal):
            return await self._no(visit, begun)
        return await self._overview(visit.mine, visit.held, begun=begun)

    async def _finish(self, visit: _Visit) -> Outcome:
        answer = answer_of(visit.form)
        if isinstance(answer, Refusal):
            return answer
        owner, step = owner_of(visit.login), visit.form.get("step", "")
        new = await self._factors.finish_enrolment(owner, step, answer, visit.form.get("label", ""))
        if isinstance(new, Refusal):
            kind = visit.form.get("kind", "")
            plugin = self._factors.kinds.get(kind)
            # What was shown was shown once; the same question may be answered again.
            again = new.reason == "factor_invalid" and plugin is not None and plugin.enrol_tries > 1
            return await self._overview(
                visit.mine, visit.held, begun=PendingChallenge(step, kind, 0.0, {}) if again else None, error=new.reason
            )
        amr = tuple(sorted(self._factors.kinds[new.kind].enrol_amr))
        is_first = len(await self._factors.enrolled(owner)) == 1
        if not amr or not (is_first or _is_enough(visit.held, amr)):
            return FactorChanged(visit.login, "added", new.kind, self._back(visit.held))
        proof = Proof(owner.issuer, owner.subject, new.id, new.kind, amr, self._clock())
        return await self._proven(visit, proof, "added")

    async def _ask(self, visit: _Visit) -> Outcome:
        begun = await self._factors.begin_challenge(owner_of(visit.login), visit.form.get("kind", ""))
        if isinstance(begun, Refusal):
            return await self._no(visit, begun)
        return await self._overview(visit.mine, visit.held, asked=begun)

    async def _prove(self, visit: _Visit) -> Outcome:
        answer = answer_of(visit.form)
        if isinstance(answer, Refusal):
            return answer
        proof = await self._factors.finish_challenge(owner_of(visit.login), visit.form.get("step", ""), answer)
        return (
            await self._no(visit, proof) if isinstance(proof, Refusal) else await self._proven(visit, proof, "proven")
        )

    async def _remove(self, visit: _Visit) -> Outcome:
        owner, factor_id = owner_of(visit.login), visit.form.get("id", "")
        kind = next((factor.kind for factor in await self._factors.enrolled(owner) if factor.id == factor_id), "")
        refusal = await self._factors.remove(owner, factor_id, await self._step_ups.proof_of(visit.login))
        if refusal is not None:
            return await self._no(visit, refusal)
        return FactorChanged(visit.login, "removed", kind, self._back(visit.held))

    # ---- what follows ----

    async def _proven(self, visit: _Visit, proof: Proof, what: str) -> FactorChanged | Refusal:
        """A proof counts for the session too; a new factor that is enough for the waiting request leads on to it."""
        held = visit.held if what == "added" and _is_enough(visit.held, proof.amr) else None
        demand = held.step_up if held is not None else None
        max_age_s = demand.max_age_s if demand is not None else PROOF_LIFE_S
        raised = await self._step_ups.raise_(visit.facts, visit.device, visit.login, proof, max_age_s)
        if isinstance(raised, Refusal):
            return raised
        login, cookies = raised
        way = self._back(visit.held, cookies) if held is None else await self._step_ups.onward(login, held, cookies)
        return FactorChanged(login, what, proof.kind, way)

    async def _no(self, visit: _Visit, refusal: Refusal) -> Overview:
        return await self._overview(visit.mine, visit.held, error=refusal.reason)

    async def _sign_in_anew(self, visit: _Visit) -> Redirect | Refusal:
        if visit.held is not None and await self._held.freshen(visit.held):
            return Redirect(self._handover.to_login(visit.held))
        return await self._login.start(visit.facts, None, b"", fresh=True)

    @staticmethod
    def _back(held: PendingRequest | None, cookies: tuple[str, ...] = ()) -> Redirect:
        return Redirect(paths.FACTORS if held is None else f"{paths.FACTORS}?{urlencode({'held': held.id})}", cookies)

    async def _overview(
        self,
        mine: Mine,
        held: PendingRequest | None,
        *,
        asked: PendingChallenge | None = None,
        begun: PendingChallenge | None = None,
        error: str = "",
    ) -> Overview:
        login = mine.current
        enrolled = await self._factors.enrolled(owner_of(login))
        kinds, there = self._factors.kinds, {factor.kind for factor in enrolled}
        proof = await self._step_ups.proof_of(login)
        proven = proof is not None and any(factor.id == proof.factor_id for factor in enrolled)
        addable = [
            (kind, kind in there and not plugin.many)
            for kind, plugin in kinds.items()
            if (enrolled or plugin.enrol_amr) and len(enrolled) < MOST_FACTORS
        ]
        return Overview(
            login=login,
            factors=enrolled,
            addable=addable,
            needs_proof=bool(enrolled) and not proven,
            provable=[kind for kind in kinds if kind in there],
            held=held,
            csrf=mine.csrf,
            asked=asked,
            begun=begun,
            error=error,
        )


def _is_enough(held: PendingRequest | None, amr: Sequence[str]) -> bool:
    """Whether a request waits, and this is what it waits for."""
    demand = held.step_up if held is not None else None
    return demand is not None and would_do(demand, amr)
