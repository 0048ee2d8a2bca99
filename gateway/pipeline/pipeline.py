"""The data path, one stage a line. An edge hands in a request head and its peer, and gets a verdict.

Law: unknown, missing, slow, undefined or raised means denied, with a stable reason. The one broad `except` of the house
is in `Pipeline.judge`, and it answers with a denial.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from gateway.audit.decision_log import decision_event
from gateway.core import paths
from gateway.core.canonical import admit
from gateway.core.capabilities import EdgeCapabilities
from gateway.core.cookies import SESSION, digest, read_cookie
from gateway.core.decision import NO_SIGNAL, Decision, RiskReport, StepUp
from gateway.core.navigation import Redirect
from gateway.core.ports.pipeline import (
    DeviceVerifier,
    IdentityReader,
    Network,
    Networks,
    Recorder,
    RiskAssessor,
    SessionBinder,
)
from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import Refusal, reason
from gateway.core.request import IpNetwork, Peer, RawRequest, RequestFacts, RequestLimits
from gateway.core.routes import Route, RouteTable
from gateway.core.subject import Device, Identity, Session, subject_key
from gateway.obligations.plan import NO_PLAN, Obligations, Plan
from gateway.obligations.steps import ObligationFailed
from gateway.pipeline.headers import Forward, Signer, request_headers
from gateway.pipeline.second_targets import decide_every_target
from gateway.pipeline.verdicts import (
    DecisionMetrics,
    InteractionRequired,
    InteractionStarter,
    LocalRequest,
    QuarantineCheck,
    ReactionHandler,
    Verdict,
)
from gateway.policy.contract import build_document
from gateway.policy.decider import Decider
from gateway.replies.documents import bare_denial
from gateway.replies.rendering import NO_BRANDING, Branding
from gateway.replies.replies import Reply, deny, redirect

_LIMITS = RequestLimits()
_UNAUTHENTICATED, _FOUND = 401, 302
_AGAIN_S = 2.0  # what is open is in doubt after that
# A port that hangs, and one that raises, by stage; every other one is a gateway_error.
_LATE = {"identify": "issuer_unavailable", "assess": "risk_unavailable", "decide": "policy_timeout"}
_RAISED = {"assess": "risk_unavailable", "decide": "policy_error"}
# Random for each process, so that no two processes ever name two decisions alike.
_EPOCH = secrets.token_hex(8)
_NUMBERS = itertools.count(1)
# A service may have its own under the same path; the gateway answers where there is no service.
# A page that is refused for one of these is sent to sign in.
_SIGN_IN = frozenset({"login_required", "session_expired", "session_revoked"})
_NOWHERE = Network()
# What an attack on credentials looks like from here; an expired token is none.
_BAD_CREDENTIAL = frozenset(
    {"token_malformed", "token_signature_invalid", "token_inactive", "token_replayed", "binding_mismatch"}
    | {"dpop_proof_invalid"}
)


def _expect(value: object, kind: type, *, optional: bool = False) -> None:
    """Raise TypeError for an answer that breaks its port's contract."""
    if not isinstance(value, kind) and not (optional and value is None):
        raise TypeError(f"no {kind.__name__}")


def _no_fields(_: RequestFacts) -> tuple[tuple[str, str], ...]:
    return ()


@dataclass(slots=True)
class _Case:
    """One request on its way through the stages, as far as it got."""

    peer: Peer
    decision_id: str
    started_ns: int
    capabilities: EdgeCapabilities
    stage: str = "admit"
    mark_ns: int = 0
    timings_us: dict[str, int] = field(default_factory=dict)
    facts: RequestFacts | None = None
    route: Route | None = None
    device: Device | None = None
    identity: Identity | None = None
    session: Session | None = None
    network: Network = _NOWHERE
    risk: RiskReport = NO_SIGNAL
    decision: Decision | None = None
    reacted: Sequence[str] = ()
    late: bool = False
    again: bool = False
    in_use: bool = True

    def give_up(self, task: asyncio.Task[Any]) -> None:
        """The deadline is over."""
        self.late = True
        task.cancel()

    def enter(self, stage: str) -> None:
        """Begin a stage; the time since the last mark belongs to the one before."""
        now = time.perf_counter_ns()
        self.timings_us[self.stage] = (now - self.mark_ns) // 1000
        self.stage, self.mark_ns = stage, now


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything one generation of the configuration needs to judge requests; replaced as a whole on reload."""

    routes: RouteTable
    quarantine: QuarantineCheck
    devices: DeviceVerifier
    readers: Sequence[IdentityReader]
    binder: SessionBinder
    networks: Networks
    assessor: RiskAssessor
    decider: Decider
    obligations: Obligations
    signer: Signer
    recorder: Recorder
    counter: DecisionMetrics
    challenge: Callable[[Sequence[str], RequestFacts, StepUp | None], str | None]
    staff_hosts: frozenset[str]
    answer_fields: Callable[[RequestFacts], tuple[tuple[str, str], ...]] = _no_fields
    desk: InteractionStarter | None = None
    reactor: ReactionHandler | None = None
    limits: RequestLimits = _LIMITS
    trusted_proxies: Sequence[IpNetwork] = ()
    branding: Branding = NO_BRANDING
    judged_headers: frozenset[str] | None = None
    own_ports: frozenset[int] = frozenset()
    clock: Callable[[], float] = time.time
    deadline_s: float = 15.0

    async def judge(
        self, raw: RawRequest, peer: Peer, capabilities: EdgeCapabilities, flaw: Refusal | None = None
    ) -> Verdict:
        """Stages 1 to 10 and 13 for one request of an edge with these capabilities. Never raises; it denies."""
        now_ns = time.perf_counter_ns()
        case = _Case(peer, self.new_id(), now_ns, capabilities, mark_ns=now_ns)
        return await self._bounded(case, self._judged(case, raw, flaw))

    async def again(self, forward: Forward, *, in_use: bool = False) -> Reply | None:
        """Judge a request that is under way as it would be now; None as long as it may go on. Never raises.

        `in_use`: somebody has used it since it was judged last, which keeps a session alive. Nothing that is good once
        is asked for again. Only a verdict that changed is recorded.
        """
        now_ns = time.perf_counter_ns()
        case = _Case(forward.facts.peer, forward.decision_id, now_ns, forward.capabilities, mark_ns=now_ns, again=True)
        case.facts = forward.facts
        case.route, case.in_use = forward.route, in_use
        return await self._bounded(case, self._judged_again(case, forward), min(self.deadline_s, _AGAIN_S))

    async def _judged(self, case: _Case, raw: RawRequest, flaw: Refusal | None) -> Verdict:
        return self._conclude(case, flaw or await self._stages(case, raw))

    async def _judged_again(self, case: _Case, forward: Forward) -> Reply | None:
        outcome = await self._stages_again(case, forward)
        if not isinstance(outcome, Refusal):
            return None
        verdict = self._conclude(case, outcome)
        return verdict if isinstance(verdict, Reply) else self.refuse(case.facts, outcome.reason, case.decision_id)

    async def _bounded[T](self, case: _Case, work: Coroutine[Any, Any, T], deadline_s: float = 0) -> T | Reply:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        # Cheaper than asyncio.timeout, and most requests are judged without ever waiting.
        alarm = asyncio.get_running_loop().call_later(deadline_s or self.deadline_s, case.give_up, task)
        try:
            return await work
        except asyncio.CancelledError:
            if case.late:
                task.uncancel()
                return self._safely(case, Refusal(_LATE.get(case.stage, "gateway_error"), "deadline"))
            if task.cancelling():
                raise
            return self._safely(case, Refusal("gateway_error", f"cancelled in {case.stage}"))
        except StoreDown:
            return self._safely(case, Refusal("store_down"))
        except Exception as error:  # noqa: BLE001  (the one broad except of the house: it denies)
            code = _RAISED.get(case.stage, "gateway_error")
            return self._safely(case, Refusal(code, f"{type(error).__name__} in {case.stage}"))
        finally:
            alarm.cancel()

    async def ask(self, ask: InteractionRequired, body: bytes | None) -> Reply:
        """Send a person to do what `ask` says, while the request waits; its own reply where it cannot. Never raises."""
        return ask.reply if self.desk is None else await self.own(self._send_away(self.desk, ask, body), ask.facts)

    async def own[T](self, work: Awaitable[T], facts: RequestFacts) -> T | Reply:
        """An answer of the gateway's own; whatever fails on the way to it is a denial. Never raises."""
        try:
            async with asyncio.timeout(self.deadline_s):
                return await work
        except StoreDown:
            return self.refuse(facts, "store_down")
        except OSError:
            return self.refuse(facts, "record_unavailable")
        except Exception:  # noqa: BLE001  (the same law as in `judge`)
            return self.refuse(facts, "gateway_error")

    async def _send_away(self, desk: InteractionStarter, ask: InteractionRequired, body: bytes | None) -> Reply:
        facts = ask.facts
        way = await desk.hold(facts, ask.route, body, fresh=ask.fresh, step_up=ask.step_up, reasons=ask.reasons)
        if isinstance(way, Redirect):
            return redirect(way.location, ask.reasons[0], ask.decision_id, way.cookies)
        return ask.reply if way.reason == "login_required" else self.refuse(facts, way.reason, ask.decision_id)

    def new_id(self) -> str:
        """A name for one decision: unique, not secret."""
        return f"{_EPOCH}{next(_NUMBERS):08x}"

    async def _stages(self, case: _Case, raw: RawRequest) -> Forward | LocalRequest | Refusal:
        facts = admit(raw, case.peer, self.limits, self.trusted_proxies, self.judged_headers, self.own_ports)
        if isinstance(facts, Refusal):
            return facts
        case.facts = facts
        case.enter("guard")
        if refusal := self.quarantine.check():
            return refusal
        case.enter("route")
        route = None if facts.path.startswith(paths.RESERVED) else self.routes.match(facts)
        if isinstance(route, Refusal) and facts.path == paths.SSF_CONFIGURATION and route.reason == "route_not_found":
            route = None
        if isinstance(route, Refusal):
            return route
        case.route = route
        if route is not None and (facts.content_length or 0) > route.body_limit_bytes:
            return Refusal("body_too_large")
        case.enter("verify_device")
        device = await self.devices.verify(facts.peer)
        if route is None:
            return LocalRequest(facts, device if isinstance(device, Device) else None)
        plan = await self._decided(case, facts, route, device)
        if isinstance(plan, Refusal):
            return plan
        case.enter("enforce_request")
        forward = Forward(
            case.decision_id,
            facts,
            route,
            [],
            plan,
            case.device,
            case.identity,
            case.session,
            self.answer_fields(facts),
            case.capabilities,
        )
        headers = request_headers(forward, self.signer)
        if plan is not NO_PLAN:
            try:
                enforced = plan.enforce_request(headers, facts)
            except ObligationFailed as failure:
                return Refusal("obligation_failed", str(failure))
            return enforced if isinstance(enforced, Refusal) else replace(forward, headers=enforced)
        return forward

    async def _stages_again(self, case: _Case, forward: Forward) -> Plan | Refusal:
        facts = forward.facts
        case.enter("guard")
        if refusal := self.quarantine.check():
            return refusal
        case.enter("route")
        route = self.routes.match(facts)
        if isinstance(route, Refusal):
            return route
        case.route = route
        case.enter("verify_device")
        plan = await self._decided(case, facts, route, await self.devices.verify(facts.peer), forward)
        if isinstance(plan, Plan) and plan.demands != forward.plan.demands:
            return Refusal("obligations_changed")
        return plan

    async def _decided(
        self,
        case: _Case,
        facts: RequestFacts,
        route: Route,
        device: Device | Refusal | None,
        before: Forward | None = None,
    ) -> Plan | Refusal:
        """Stages 4 to 9: who and what asks, how risky that is, what policy says; `before` is a request under way."""
        if isinstance(device, Refusal):
            return device
        if device is None and route.device_required:
            return Refusal("device_required") if before is not None else await self._without_device(case, facts, route)
        _expect(device, Device, optional=True)
        case.device = device
        case.enter("identify")
        identity = await self._identify(facts, route, before)
        if isinstance(identity, Refusal):
            self._failed(identity, facts, route)
            return identity
        _expect(identity, Identity, optional=True)
        case.identity = identity
        if identity is not None:
            case.enter("bind")
            if before is None:
                session = await self.binder.bind(identity, device, facts, route)
            else:
                session = await self.binder.bind(
                    identity, device, facts, route, before=before.session, in_use=case.in_use
                )
            if isinstance(session, Refusal):
                self._failed(session, facts, route, identity)
                return session
            _expect(session, Session)
            case.session = session
        case.enter("assess")
        network = self.networks.look(facts.client_ip)
        _expect(network, Network)
        case.network = network
        risk = await self.assessor.assess(case.session, identity, device, facts, network)
        _expect(risk, RiskReport)
        case.risk = risk
        case.enter("decide")

        async def ask(asked: RequestFacts, at: Route) -> Decision | Refusal:
            session, risk_now = case.session, case.risk
            document = build_document(asked, at, device, identity, session, risk_now, network, self.clock())
            return await self.decider.decide(document)

        decision = await decide_every_target(facts, route, self.routes, ask, has_device=device is not None)
        if isinstance(decision, Refusal):
            return decision
        _expect(decision, Decision)
        case.decision = decision
        case.enter("settle")
        if decision.effect != "allow":
            if decision.reactions and self.reactor is not None:
                why = f"by policy: {decision.reasons[0]}"
                case.reacted = await self.reactor.react(decision.reactions, identity, case.session, why)
            return Refusal(decision.reasons[0])
        if not decision.obligations:
            return NO_PLAN
        return self.obligations.plan(decision.obligations, facts, case.capabilities)

    async def _without_device(self, case: _Case, facts: RequestFacts, route: Route) -> Refusal:
        """`device_required`; `binding_mismatch` for the cookie of a session that a device holds, which ends with that.

        Only a cookie that could be ours is looked at: without a device nobody gets the gateway to ask an issuer.
        """
        found = read_cookie(facts.header_values("cookie"), SESSION)
        if isinstance(found, str) and facts.header("authorization") is None:
            case.enter("identify")
            outcome: Identity | Session | Refusal | None = await self._identify(facts, route, None)
            if isinstance(outcome, Identity):
                case.identity = outcome
                case.enter("bind")
                outcome = await self.binder.bind(outcome, None, facts, route)
            if isinstance(outcome, Refusal) and outcome.reason == "binding_mismatch":
                self._failed(outcome, facts, route, case.identity)
                return outcome
        return Refusal("device_required")

    def _failed(self, refusal: Refusal, facts: RequestFacts, route: Route, identity: Identity | None = None) -> None:
        """Tell the assessor of a credential that was none; of users' requests it hears nothing."""
        if refusal.reason in _BAD_CREDENTIAL and not route.zero_log:
            account = subject_key(identity.issuer, identity.subject) if identity is not None else ""
            if not account and (guess := facts.header("authorization")):
                account = digest(guess)  # whose it is nobody knows; what tells two guesses apart will do
            self.assessor.failed(refusal.reason, facts.client_ip, self.networks.look(facts.client_ip), account=account)

    async def _identify(self, facts: RequestFacts, route: Route, before: Forward | None) -> Identity | Refusal | None:
        if before is not None and before.identity is None:
            return None
        for reader in self.readers:
            if before is None or before.identity is None:
                found = await reader.read(facts, route)
            else:
                found = await reader.again(before.identity, facts, route)
            if found is not None:
                return found
        return None if before is None else Refusal("login_required", "nobody knows this person any more")

    def refuse(self, facts: RequestFacts | None, code: str, decision_id: str = "") -> Reply:
        """A denial outside the stages (the upstream failed, a time-out, access taken away)."""
        return deny(facts, (code,), decision_id or self.new_id(), branding=self.branding)

    # ---- stage 13 ----

    def _safely(self, case: _Case, refusal: Refusal) -> Reply:
        """Conclude a failure; when even that fails, a bare denial."""
        try:
            verdict = self._conclude(case, refusal)
        except Exception:  # noqa: BLE001  (still the same except: the record or the page failed as well)
            return bare_denial(refusal.reason)
        return verdict if isinstance(verdict, Reply) else self.refuse(case.facts, refusal.reason, case.decision_id)

    def _conclude(self, case: _Case, outcome: Forward | LocalRequest | Refusal) -> Verdict:
        """Record what was decided, then say it. A staff decision that cannot be recorded is refused."""
        reasons, effect = self._reasons(case, outcome)
        verdict = outcome if not isinstance(outcome, Refusal) else self._answer(case, reasons)
        case.enter("record")
        zero_log = self._zero_log(case)
        if not zero_log and not isinstance(outcome, LocalRequest):
            try:
                self.recorder.record(self._event(case, effect, reasons, verdict, outcome))
            except OSError:
                reasons, effect = ("record_unavailable",), "deny"
                verdict = self._reply(case, reasons)
        seconds = (time.perf_counter_ns() - case.started_ns) / 1e9
        service = case.route.service if case.route else "-"
        self.counter.decision(service, effect, reasons[0], seconds, zero_log=zero_log)
        return verdict

    @staticmethod
    def _reasons(case: _Case, outcome: Forward | LocalRequest | Refusal) -> tuple[tuple[str, ...], str]:
        if isinstance(outcome, LocalRequest):
            return ("local",), "allow"
        if isinstance(outcome, Forward):
            return case.decision.reasons if case.decision else (), "allow"
        decision = case.decision
        if decision is not None and decision.effect != "allow":
            return decision.reasons, decision.effect
        return (outcome.reason,), "login" if outcome.reason == "login_required" else "deny"

    def _answer(self, case: _Case, reasons: tuple[str, ...]) -> InteractionRequired | Reply:
        """A refusal, or what a person can do about it: a program never gets a redirect."""
        reply = self._reply(case, reasons)
        facts, route, decision = case.facts, case.route, case.decision
        if self.desk is None or facts is None or route is None or not facts.wants_page:
            return reply
        if facts.header("authorization") is not None:
            return reply  # whoever brings a token signs in elsewhere
        effect = decision.effect if decision is not None else ""
        if effect == "step_up" and case.identity is not None and case.identity.kind == "session":
            demand = decision.step_up if decision is not None and decision.step_up is not None else StepUp()
            return InteractionRequired(case.decision_id, facts, route, reasons, reply, demand)
        if effect == "login" or (decision is None and reasons[0] in _SIGN_IN):
            return InteractionRequired(case.decision_id, facts, route, reasons, reply, fresh=case.identity is not None)
        return reply

    def _reply(self, case: _Case, reasons: tuple[str, ...]) -> Reply:
        # A 403 is about the token only when there was one: no token cures a missing device (RFC 6750 section 3.1).
        about_token = reason(reasons[0]).status == _UNAUTHENTICATED or case.decision is not None
        step_up = case.decision.step_up if case.decision is not None else None
        challenge = self.challenge(reasons, case.facts, step_up) if case.facts is not None and about_token else None
        reply = deny(case.facts, reasons, case.decision_id, challenge=challenge, branding=self.branding)
        fields = self.answer_fields(case.facts) if case.facts is not None else ()
        return reply.with_fields(*fields)

    def _zero_log(self, case: _Case) -> bool:
        """Whether this request must leave no trace: also when it was refused before its route was known."""
        if case.route is not None:
            return case.route.zero_log
        host = case.facts.host if case.facts is not None else (case.peer.sni or "").lower().removesuffix(".")
        return not (
            host in self.staff_hosts
            or (f"*.{host.partition('.')[2]}" in self.staff_hosts and not self.routes.has_host(host))
        )

    def _event(
        self, case: _Case, effect: str, reasons: tuple[str, ...], verdict: Verdict, outcome: object
    ) -> Mapping[str, Any]:
        return decision_event(
            ts=self.clock(),
            decision_id=case.decision_id,
            effect=effect,
            reasons=reasons,
            detail=outcome.detail if isinstance(outcome, Refusal) else "",
            status=_FOUND
            if isinstance(verdict, InteractionRequired)
            else verdict.status
            if isinstance(verdict, Reply)
            else None,
            peer=case.peer,
            facts=case.facts,
            route=case.route,
            device=case.device,
            identity=case.identity,
            session=case.session,
            risk=case.risk,
            obligations=[obligation.kind for obligation in case.decision.obligations] if case.decision else (),
            reactions=case.reacted,
            cut=case.again,
            policy_version=self.decider.version,
            timings_us=case.timings_us,
            edge=case.capabilities.edge,
        )
