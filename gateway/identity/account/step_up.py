"""Step-up: somebody who is signed in proves a factor, and the request that waited for it goes on.

Laws: a request goes on for a proof that policy would take, never for less. A proof changes every cookie of the session,
so that one which was stolen before does not rise with its owner. Nothing happens for a form that the gateway's own page
did not send. Raises StoreDown.

Collection: `factor_proof` (key: the login session's id): its latest proof, which may change the person's factors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlencode

from gateway.core import paths
from gateway.core.cookies import SSO, cookie, read_cookie
from gateway.core.decision import StepUp
from gateway.core.factors import FactorOwner
from gateway.core.navigation import Redirect
from gateway.core.ports.documents import Documents
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.identity.account.sessions import OwnSessions
from gateway.identity.factors.store import PROOF_LIFE_S, EnrolledFactor, Factors, PendingChallenge, Proof
from gateway.identity.login.flow import fields_of
from gateway.identity.login.pending_requests import PendingRequest, PendingRequests
from gateway.identity.login.return_ticket import ReturnTickets
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions

COLLECTION = "factor_proof"
RECENT_S = 300.0
_TOO_WEAK = Refusal("factor_insufficient")


@dataclass(frozen=True, slots=True)
class StepUpPrompt:
    """What a person is asked before a held request goes on; `error` is why they are asked again, "" for the first time.

    `usable` are the labels of their factors that would do, by kind, the strongest kind first; `addable` the kinds that
    would do if they had one. `begun` is None where nothing can be asked: no such factor, or too many failures.
    """

    login: LoginSession
    held: PendingRequest
    usable: Mapping[str, Sequence[str]]
    addable: Sequence[str]
    begun: PendingChallenge | None
    kind: str
    csrf: str = field(repr=False)
    error: str = ""

    def document(self) -> dict[str, Any]:
        """The model of the page "step_up".

        `name`, `email`; `host` they want to open; `why` (reason codes); `methods` (amr values, empty: any) and
        `max_age_s`; `factors` [{kind, labels, href, chosen}]; `challenge` {kind, step, expires_at, show} or None;
        `must_enrol`, `enrol_href`, `enrol_kinds`; `csrf`, `held`, `action`, `error` (a reason code or None).
        """
        demand = self.held.step_up or StepUp()
        held = {"held": self.held.id}
        return {
            **named(self.login),
            "host": self.held.host,
            "why": list(self.held.reasons),
            "methods": list(demand.methods),
            "max_age_s": demand.max_age_s,
            "factors": [
                {
                    "kind": kind,
                    "labels": list(labels),
                    "href": f"{paths.STEP_UP}?{urlencode({**held, 'kind': kind})}",
                    "chosen": kind == self.kind,
                }
                for kind, labels in self.usable.items()
            ],
            "challenge": shown(self.begun),
            "must_enrol": not self.usable,
            "enrol_href": f"{paths.FACTORS}?{urlencode(held)}",
            "enrol_kinds": list(self.addable),
            "csrf": self.csrf,
            **held,
            "action": paths.STEP_UP,
            "error": self.error or None,
        }


@dataclass(frozen=True, slots=True)
class SteppedUp:
    """A person proved a factor of this kind; `redirect` leads on. `zero_log`: for a service that leaves no trace."""

    login: LoginSession
    kind: str
    redirect: Redirect
    zero_log: bool


class StepUps:
    """For the pages on the gateway's own `host`. `closed` are the issuers whose people may not add a first factor."""

    def __init__(
        self,
        factors: Factors,
        documents: Documents,
        logins: LoginSessions,
        cookies: BrowserSessions,
        held: PendingRequests,
        handover: ReturnTickets,
        own: OwnSessions,
        *,
        host: str,
        clock: Callable[[], float],
        closed: Collection[str] = (),
    ) -> None:
        self._factors = factors
        self._documents = documents
        self._logins = logins
        self._cookies = cookies
        self._held = held
        self._handover = handover
        self._own = own
        self._host = host
        self._clock = clock
        self._closed = frozenset(closed)

    async def look(self, facts: RequestFacts, device: Device | None) -> StepUpPrompt | Redirect | Refusal:
        """`GET /.gateway/step-up?held=...[&kind=...]`: the question, or first to the sign-in.

        Refusals: `malformed_request`, `login_expired`, `cookie_ambiguous`, `binding_mismatch`, `factor_closed`, and
        policy's own reason where nothing that can be proven here would do.
        """
        query = fields_of(facts, ("held", "kind"))
        if query is None or "held" not in query:
            return Refusal("malformed_request", "query")
        held = await self._held.look(query["held"])
        if held is None:
            return Refusal("login_expired", "held")
        mine = await self._own.mine(facts, device)
        if isinstance(mine, Refusal):
            return mine if mine.reason in {"cookie_ambiguous", "binding_mismatch"} else self._to_login(held)
        return await self._ask(mine.current, mine.csrf, held, query.get("kind", ""))

    async def answer(
        self, facts: RequestFacts, device: Device | None, form: Mapping[str, str]
    ) -> SteppedUp | StepUpPrompt | Redirect | Refusal:
        """`POST /.gateway/step-up` with `csrf`, `held`, `kind`, `step` and an answer (see `answer_of`).

        Whatever is wrong with a proof leads to the question again, with its reason. Refusals: `csrf_refused`, those of
        `look` and `OwnSessions.mine`.
        """
        mine = await self._own.allowed(facts, device, form)
        if isinstance(mine, Refusal):
            return mine
        answer = answer_of(form)
        if isinstance(answer, Refusal):
            return answer
        held = await self._held.look(form.get("held", ""))
        if held is None:
            return Refusal("login_expired", "held")
        demand, kind = held.step_up, form.get("kind", "")
        if demand is None or not _accepts(held, mine.current):
            return self._to_login(held)
        proof = await self._factors.finish_challenge(owner_of(mine.current), form.get("step", ""), answer)
        if isinstance(proof, Proof) and not would_do(demand, proof.amr):
            proof = _TOO_WEAK
        if isinstance(proof, Refusal):
            return await self._ask(mine.current, mine.csrf, held, kind, proof.reason)
        raised = await self.raise_(facts, device, mine.current, proof, demand.max_age_s)
        if isinstance(raised, Refusal):
            return raised
        login, cookies = raised
        return SteppedUp(login, proof.kind, await self.onward(login, held, cookies), held.zero_log)

    # ---- shared with the page of one's own factors ----

    async def raise_(
        self, facts: RequestFacts, device: Device | None, login: LoginSession, proof: Proof, max_age_s: float
    ) -> tuple[LoginSession, tuple[str, ...]] | Refusal:
        """The session with a proof, for so long, and Set-Cookie values for this host. Refusal `session_revoked`."""
        value = read_cookie(facts.header_values("cookie"), SSO)
        raised = await self._logins.elevate(login.id, proof.amr, self._clock() + max_age_s)
        if raised is None or not isinstance(value, str):
            return Refusal("session_revoked", "it ended during the step-up")
        kept = json.dumps(asdict(proof)).encode()
        await self._documents.overwrite(COLLECTION, login.id, kept, self._clock() + PROOF_LIFE_S)
        fresh = await self._cookies.rotate(value, raised, self._host, device)
        return raised, (cookie(SSO, fresh),)

    async def onward(self, login: LoginSession, held: PendingRequest, cookies: tuple[str, ...]) -> Redirect:
        """On with the request that waited."""
        return Redirect(await self._handover.leave(login, held), cookies)

    async def proof_of(self, login: LoginSession) -> Proof | None:
        """The latest proof of this session, while it may change the person's factors; none where it was taken back."""
        if login.elevated_until is None:
            return None
        document = await self._documents.get(COLLECTION, login.id, self._clock())
        if document is None:
            return None
        found = json.loads(document.value)
        return Proof(**(found | {"amr": tuple(found["amr"])}))

    def first_factor(self, login: LoginSession) -> Refusal | None:
        """Whether whoever has no factor may add one now.

        Refusals: `factor_closed` where the issuer's people may not; `auth_stale` for a sign-in that is older than five
        minutes: whoever found an open session must not leave a key of their own in it.
        """
        if login.identity.issuer in self._closed:
            return Refusal("factor_closed")
        now, at = self._clock(), login.identity.auth_time
        recent = at is not None and now - at <= RECENT_S and now - login.created_at <= RECENT_S
        return None if recent else Refusal("auth_stale", "for a first factor")

    async def held_for(self, login: LoginSession, held_id: str) -> PendingRequest | None:
        """The request that waits for a proof of this person; None when there is none (any more)."""
        held = await self._held.look(held_id)
        return held if held is not None and held.step_up is not None and _accepts(held, login) else None

    # ---- the question ----

    async def _ask(
        self, login: LoginSession, csrf: str, held: PendingRequest, kind: str, error: str = ""
    ) -> StepUpPrompt | Redirect | Refusal:
        demand = held.step_up
        if demand is None or not _accepts(held, login):
            return self._to_login(held)
        owner = owner_of(login)
        enrolled = await self._factors.enrolled(owner)
        fitting = [name for name, plugin in self._factors.kinds.items() if would_do(demand, plugin.amr)]
        usable = {name: labels for name in fitting if (labels := _labels(enrolled, name))}
        addable = [name for name in fitting if enrolled or self._factors.kinds[name].enrol_amr]
        if not usable:
            first = None if enrolled else self.first_factor(login)
            if first is not None and first.reason == "factor_closed":
                return first
            if not addable:
                return Refusal(held.reasons[0] if held.reasons else "mfa_required", "nothing here would do")
            return StepUpPrompt(login, held, usable, addable, None, "", csrf, error)
        chosen = kind if kind in usable else next(iter(usable))
        begun = await self._factors.begin_challenge(owner, chosen)
        if isinstance(begun, Refusal):
            return StepUpPrompt(login, held, usable, addable, None, chosen, csrf, begun.reason)
        return StepUpPrompt(login, held, usable, addable, begun, chosen, csrf, error)

    def _to_login(self, held: PendingRequest) -> Redirect:
        return Redirect(self._handover.to_login(held))


def would_do(demand: StepUp, amr: Collection[str]) -> bool:
    """Whether a proof of `amr` is one that is demanded."""
    return bool(amr) and (not demand.methods or not set(demand.methods).isdisjoint(amr))


def owner_of(login: LoginSession) -> FactorOwner:
    """Whose factors count in this session."""
    identity = login.identity
    return FactorOwner(identity.issuer, identity.subject, identity.email or identity.name or identity.subject)


def answer_of(form: Mapping[str, str]) -> Mapping[str, Any] | Refusal:
    """The answer in a form: `answer` (the text of a JSON object), `code`, or `saved` ("true"), one of them.

    Refusal `malformed_request`.
    """
    if [name in form for name in ("answer", "code", "saved")].count(True) != 1:
        return Refusal("malformed_request", "answer")
    if "code" in form:
        return {"code": form["code"]}
    if "saved" in form:
        return {"saved": form["saved"] == "true"}
    try:
        found = json.loads(form["answer"])
    except (ValueError, RecursionError):
        return Refusal("malformed_request", "answer")
    return found if isinstance(found, dict) else Refusal("malformed_request", "answer")


def named(login: LoginSession) -> dict[str, str]:
    """Whom a page speaks to."""
    return {"name": login.identity.name or login.identity.subject, "email": login.identity.email}


def shown(begun: PendingChallenge | None) -> dict[str, Any] | None:
    """A question as a page gets it."""
    if begun is None:
        return None
    return {"kind": begun.kind, "step": begun.id, "expires_at": begun.expires_at or None, "show": dict(begun.show)}


def _accepts(held: PendingRequest, login: LoginSession) -> bool:
    """Whether the service that a request is for accepts the issuer of this session."""
    return not held.issuers or login.identity.issuer in held.issuers


def _labels(enrolled: Sequence[EnrolledFactor], kind: str) -> list[str]:
    return [factor.label for factor in enrolled if factor.kind == kind]
