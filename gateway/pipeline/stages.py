"""The stages of a decision, in the order in which they run: for a new request and for one that is under way.

A stage is `async (context, ports) -> Refusal | LocalRequest | None`: None goes on, everything else is the outcome. It
reads the context and fills in its own fields. Raising is safe: `deadline` turns it into a denial with a reason.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.core import paths
from gateway.core.cookies import SESSION, digest, read_cookie
from gateway.core.decision import Decision, RiskReport
from gateway.core.ports.pipeline import (
    DeviceVerifier,
    IdentityReader,
    Network,
    Networks,
    RiskAssessor,
    SessionBinder,
)
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.routes import Route, RouteTable
from gateway.core.subject import Device, Identity, Session, subject_key
from gateway.obligations.plan import NO_PLAN, Obligations
from gateway.obligations.steps import ObligationFailed
from gateway.pipeline.context import DecisionContext
from gateway.pipeline.headers import Forward, Signer, request_headers
from gateway.pipeline.second_targets import decide_every_target
from gateway.pipeline.verdicts import LocalRequest, QuarantineCheck, ReactionHandler
from gateway.policy.contract import build_document
from gateway.policy.decider import Decider

# What an attack on credentials looks like from here; an expired token is none.
_BAD_CREDENTIAL = frozenset(
    {"token_malformed", "token_signature_invalid", "token_inactive", "token_replayed", "binding_mismatch"}
    | {"dpop_proof_invalid"}
)


def _no_fields(_: RequestFacts) -> tuple[tuple[str, str], ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePorts:
    """What the stages ask. `response_fields`: fields of the gateway's own for the response to a request."""

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
    reactions: ReactionHandler | None = None
    response_fields: Callable[[RequestFacts], tuple[tuple[str, str], ...]] = _no_fields
    clock: Callable[[], float] = time.time


type Stage = Callable[[DecisionContext, StagePorts], Awaitable[Refusal | LocalRequest | None]]


async def guard(_: DecisionContext, ports: StagePorts) -> Refusal | None:
    """Stage 2. Nothing passes while this node is quarantined."""
    return ports.quarantine.check()


async def route(context: DecisionContext, ports: StagePorts) -> Refusal | None:
    """Stage 3. The service's route; None for the gateway's own paths."""
    facts = context.admitted
    match = None if facts.path.startswith(paths.RESERVED) else ports.routes.match(facts)
    if isinstance(match, Refusal):
        # A service may have its own under the same path; the gateway answers where there is no service.
        is_ours = facts.path == paths.SSF_CONFIGURATION and match.reason == "route_not_found"
        if not is_ours or context.previous is not None:
            return match
        match = None
    context.route = match
    if match is not None and context.previous is None and (facts.content_length or 0) > match.body_limit_bytes:
        return Refusal("body_too_large")
    return None


async def verify_device(context: DecisionContext, ports: StagePorts) -> Refusal | LocalRequest | None:
    """Stage 4. The device of the handshake's certificate; a request for the gateway itself is judged no further."""
    facts = context.admitted
    device = await ports.devices.verify(facts.peer)
    if context.route is None:
        return LocalRequest(facts, device if isinstance(device, Device) else None)
    if isinstance(device, Refusal):
        return device
    if device is None and context.route.device_required:
        return Refusal("device_required") if context.previous is not None else await _without_device(context, ports)
    _expect(device, Device, optional=True)
    context.device = device
    return None


async def identify(context: DecisionContext, ports: StagePorts) -> Refusal | None:
    """Stage 5. The person; None where nobody signed in and the policies may still let the request through."""
    identity = await _authenticate(context, ports)
    if isinstance(identity, Refusal):
        _record_failure(context, ports, identity)
        return identity
    _expect(identity, Identity, optional=True)
    context.identity = identity
    return None


async def bind(context: DecisionContext, ports: StagePorts) -> Refusal | None:
    """Stage 6. The session that ties the person to the device and key."""
    if context.identity is None:
        return None
    session = await _bind(context, ports, context.device)
    if isinstance(session, Refusal):
        _record_failure(context, ports, session)
        return session
    _expect(session, Session)
    context.session = session
    return None


async def assess(context: DecisionContext, ports: StagePorts) -> Refusal | None:
    """Stage 7. The risk of the moment."""
    facts = context.admitted
    network = ports.networks.lookup(facts.client_ip)
    _expect(network, Network)
    context.network = network
    risk = await ports.assessor.assess(
        context.session, context.identity, context.device, facts, network, context.matched
    )
    _expect(risk, RiskReport)
    context.risk = risk
    return None


async def decide(context: DecisionContext, ports: StagePorts) -> Refusal | None:
    """Stage 8. What the policies decide, about every resource that the request names."""

    async def decide_target(facts: RequestFacts, route: Route) -> Decision | Refusal:
        document = build_document(
            facts,
            route,
            context.device,
            context.identity,
            context.session,
            context.risk,
            context.network,
            ports.clock(),
        )
        return await ports.decider.decide(document)

    decision = await decide_every_target(
        context.admitted, context.matched, ports.routes, decide_target, has_device=context.device is not None
    )
    if isinstance(decision, Refusal):
        return decision
    _expect(decision, Decision)
    context.decision = decision
    return None


async def settle(context: DecisionContext, ports: StagePorts) -> Refusal | None:
    """Stage 9. The plan of the obligations, which this edge can enforce; an open request's plan must stay the same."""
    decision = context.decision
    if decision is None:
        raise RuntimeError("no decision")
    if decision.effect != "allow":
        if decision.reactions and ports.reactions is not None:
            cause = f"by policy: {decision.reasons[0]}"
            context.reactions = await ports.reactions.react(
                decision.reactions, context.identity, context.session, cause
            )
        return Refusal(decision.reasons[0])
    plan = NO_PLAN
    if decision.obligations:
        planned = ports.obligations.plan(decision.obligations, context.admitted, context.capabilities)
        if isinstance(planned, Refusal):
            return planned
        plan = planned
    if context.previous is not None and plan.demands != context.previous.plan.demands:
        return Refusal("obligations_changed")
    context.plan = plan
    return None


STAGES: tuple[Stage, ...] = (guard, route, verify_device, identify, bind, assess, decide, settle)
_NAMED = tuple((stage.__name__, stage) for stage in STAGES)


async def run_stages(context: DecisionContext, ports: StagePorts) -> Refusal | LocalRequest | None:
    """Stages 2 to 9; None when the request may go on."""
    for name, stage in _NAMED:
        context.enter(name)
        outcome = await stage(context, ports)
        if outcome is not None:
            return outcome
    return None


def enforce_request(context: DecisionContext, ports: StagePorts) -> Forward | Refusal:
    """Stage 10. The head as it goes upstream, obligations enforced. Raises ValueError."""
    context.enter("enforce_request")
    facts, plan = context.admitted, context.plan
    headers = request_headers(
        facts,
        context.matched,
        context.device,
        context.identity,
        context.session,
        context.decision_id,
        ports.signer,
    )
    if plan is not NO_PLAN:
        try:
            enforced = plan.enforce_request(headers, facts)
        except ObligationFailed as failure:
            return Refusal("obligation_failed", str(failure))
        if isinstance(enforced, Refusal):
            return enforced
        headers = enforced
    return Forward(
        context.decision_id,
        facts,
        context.matched,
        headers,
        plan,
        context.device,
        context.identity,
        context.session,
        ports.response_fields(facts),
        context.capabilities,
    )


def _expect(value: object, kind: type, *, optional: bool = False) -> None:
    """Raise TypeError for an answer that breaks its port's contract."""
    if not isinstance(value, kind) and not (optional and value is None):
        raise TypeError(f"no {kind.__name__}")


async def _authenticate(context: DecisionContext, ports: StagePorts) -> Identity | Refusal | None:
    """Whom the first reader knows; for an open request, the same person as they are now.

    A good session cookie is the person, whatever stands beside it. Where no credential is good, the last one says why.
    """
    facts, previous = context.admitted, context.previous
    if previous is None:
        refusal: Refusal | None = None
        for reader in ports.readers:
            outcome = await reader.read(facts, context.matched)
            if isinstance(outcome, Refusal):
                refusal = outcome
            elif outcome is not None:
                return outcome
        return refusal
    if previous.identity is None:
        return None
    for reader in ports.readers:
        identity = await reader.again(previous.identity, facts, context.matched)
        if identity is not None:
            return identity
    return Refusal("login_required", "nobody knows this person any more")


async def _bind(context: DecisionContext, ports: StagePorts, device: Device | None) -> Session | Refusal:
    identity, previous = context.identity, context.previous
    if identity is None:
        raise RuntimeError("nobody to bind")
    if previous is None:
        return await ports.binder.bind(identity, device, context.admitted, context.matched)
    return await ports.binder.bind(
        identity, device, context.admitted, context.matched, before=previous.session, in_use=context.in_use
    )


async def _without_device(context: DecisionContext, ports: StagePorts) -> Refusal:
    """`device_required`; `binding_mismatch` for the cookie of a session that a device holds, which ends with that.

    Only a cookie that could be ours is looked at: without a device nobody gets the gateway to ask an issuer.
    """
    facts = context.admitted
    cookie = read_cookie(facts.header_values("cookie"), SESSION)
    if isinstance(cookie, str) and (context.matched.own_authorization or facts.header("authorization") is None):
        context.enter("identify")
        outcome: Identity | Session | Refusal | None = await _authenticate(context, ports)
        if isinstance(outcome, Identity):
            context.identity = outcome
            context.enter("bind")
            outcome = await _bind(context, ports, None)
        if isinstance(outcome, Refusal) and outcome.reason == "binding_mismatch":
            _record_failure(context, ports, outcome)
            return outcome
    return Refusal("device_required")


def _record_failure(context: DecisionContext, ports: StagePorts, refusal: Refusal) -> None:
    """Tell the assessor of a credential that was none; of users' requests it hears nothing."""
    facts, identity = context.admitted, context.identity
    if refusal.reason in _BAD_CREDENTIAL and not context.matched.zero_log:
        account = subject_key(identity.issuer, identity.subject) if identity is not None else ""
        if not account and not context.matched.own_authorization and (guess := facts.header("authorization")):
            account = digest(guess)  # whose it is nobody knows; what tells two guesses apart will do
        network = ports.networks.lookup(facts.client_ip)
        ports.assessor.record_failure(refusal.reason, facts.client_ip, network, account=account)
