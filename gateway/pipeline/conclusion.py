"""Stage 13, record: the outcome of the stages is written down, counted, and made into the verdict.

Laws: a staff decision that cannot be recorded is refused. A zero-log request leaves no trace but a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.audit.decision_log import decision_event
from gateway.core.decision import StepUp
from gateway.core.ports.pipeline import Recorder
from gateway.core.reasons import Refusal, reason
from gateway.core.request import RequestFacts
from gateway.pipeline.context import DecisionContext, new_decision_id
from gateway.pipeline.headers import Forward
from gateway.pipeline.stages import StagePorts
from gateway.pipeline.verdicts import DecisionMetrics, InteractionRequired, LocalRequest, Verdict
from gateway.replies.documents import bare_denial
from gateway.replies.rendering import NO_BRANDING, Branding
from gateway.replies.replies import Reply, deny

_UNAUTHENTICATED, _FOUND = 401, 302
# A page that is refused for one of these is sent to sign in.
_SIGN_IN = frozenset({"login_required", "session_expired", "session_revoked"})

type Outcome = Forward | LocalRequest | Refusal
type Challenge = Callable[[Sequence[str], RequestFacts, StepUp | None], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """Makes verdicts of outcomes. `challenge`: the WWW-Authenticate field of a refusal, None for none.

    `staff_hosts` are recorded whatever comes of a request. `is_interactive`: people can be sent to sign in.
    """

    ports: StagePorts
    recorder: Recorder
    metrics: DecisionMetrics
    challenge: Challenge
    staff_hosts: frozenset[str]
    is_interactive: bool = False
    branding: Branding = NO_BRANDING

    def conclude(self, context: DecisionContext, outcome: Outcome) -> Verdict:
        """Record what was decided, then give the verdict."""
        reasons, effect = _reasons(context, outcome)
        verdict = outcome if not isinstance(outcome, Refusal) else self._refused(context, reasons)
        context.enter("record")
        zero_log = self._is_zero_log(context)
        if not zero_log and not isinstance(outcome, LocalRequest):
            try:
                self.recorder.record(self._event(context, effect, reasons, verdict, outcome))
            except OSError:
                reasons, effect = ("record_unavailable",), "deny"
                verdict = self._denial(context, reasons)
        seconds = (time.perf_counter_ns() - context.started_ns) / 1e9
        service = context.route.service if context.route else "-"
        self.metrics.decision(service, effect, reasons[0], seconds, zero_log=zero_log)
        return verdict

    def conclude_failure(self, context: DecisionContext, refusal: Refusal) -> Reply:
        """Conclude a failure; when even that fails, a bare denial. Never raises."""
        try:
            verdict = self.conclude(context, refusal)
        except Exception:  # noqa: BLE001  (the record or the page failed as well)
            return bare_denial(refusal.reason)
        return (
            verdict if isinstance(verdict, Reply) else self.refuse(context.facts, refusal.reason, context.decision_id)
        )

    def refuse(self, facts: RequestFacts | None, code: str, decision_id: str = "") -> Reply:
        """A denial outside the stages (the upstream failed, a time-out, access taken away)."""
        return deny(facts, (code,), decision_id or new_decision_id(), branding=self.branding)

    def _refused(self, context: DecisionContext, reasons: tuple[str, ...]) -> InteractionRequired | Reply:
        """A denial, or what a person can do about it: a program never gets a redirect."""
        reply = self._denial(context, reasons)
        facts, route, decision = context.facts, context.route, context.decision
        if not self.is_interactive or facts is None or route is None or not facts.wants_page:
            return reply
        identity = context.identity
        has_session = identity is not None and identity.kind == "session"
        if facts.brings_token and not has_session and not route.own_authorization:
            return reply  # whoever brings a token signs in elsewhere
        effect = decision.effect if decision is not None else ""
        if effect == "step_up" and identity is not None and identity.kind == "session":
            demand = decision.step_up if decision is not None and decision.step_up is not None else StepUp()
            return InteractionRequired(context.decision_id, facts, route, reasons, reply, demand)
        if effect == "login" or (decision is None and reasons[0] in _SIGN_IN):
            return InteractionRequired(context.decision_id, facts, route, reasons, reply, fresh=identity is not None)
        return reply

    def _denial(self, context: DecisionContext, reasons: tuple[str, ...]) -> Reply:
        facts, decision = context.facts, context.decision
        # A 403 is about the token only when there was one: no token cures a missing device (RFC 6750 section 3.1).
        about_token = reason(reasons[0]).status == _UNAUTHENTICATED or decision is not None
        step_up = decision.step_up if decision is not None else None
        texts = self.ports.decider.reason_texts if decision is not None else {}
        challenge = self.challenge(reasons, facts, step_up) if facts is not None and about_token else None
        reply = deny(facts, reasons, context.decision_id, challenge=challenge, branding=self.branding, texts=texts)
        fields = self.ports.response_fields(facts) if facts is not None else ()
        return reply.with_fields(*fields)

    def _is_zero_log(self, context: DecisionContext) -> bool:
        """Whether this request must leave no trace: also when it was refused before its route was known."""
        if context.route is not None:
            return context.route.zero_log
        host = context.facts.host if context.facts is not None else (context.peer.sni or "").lower().removesuffix(".")
        routes = self.ports.routes
        return routes.has_zero_log(host) or not (
            host in self.staff_hosts
            or (f"*.{host.partition('.')[2]}" in self.staff_hosts and not routes.has_host(host))
        )

    def _event(
        self, context: DecisionContext, effect: str, reasons: tuple[str, ...], verdict: Verdict, outcome: Outcome
    ) -> Mapping[str, Any]:
        decision = context.decision
        return decision_event(
            ts=self.ports.clock(),
            decision_id=context.decision_id,
            effect=effect,
            reasons=reasons,
            detail=outcome.detail if isinstance(outcome, Refusal) else "",
            status=_status(verdict),
            peer=context.peer,
            facts=context.facts,
            route=context.route,
            device=context.device,
            identity=context.identity,
            session=context.session,
            risk=context.risk,
            obligations=[obligation.kind for obligation in decision.obligations] if decision else (),
            reactions=context.reactions,
            cut=context.previous is not None,
            policy_version=self.ports.decider.version,
            timings_us=context.timings_us,
            edge=context.capabilities.edge,
        )


def _reasons(context: DecisionContext, outcome: Outcome) -> tuple[tuple[str, ...], str]:
    """The reason codes of an outcome, and its effect."""
    decision = context.decision
    if isinstance(outcome, LocalRequest):
        return ("local",), "allow"
    if isinstance(outcome, Forward):
        return decision.reasons if decision else (), "allow"
    if decision is not None and decision.effect != "allow":
        return decision.reasons, decision.effect
    return (outcome.reason,), "login" if outcome.reason == "login_required" else "deny"


def _status(verdict: Verdict) -> int | None:
    """The HTTP status for the record; None while the service has not answered."""
    if isinstance(verdict, InteractionRequired):
        return _FOUND
    return verdict.status if isinstance(verdict, Reply) else None
