"""The data path: an edge hands in a request head and its peer, and gets a verdict.

    admit -> guard -> route -> verify_device -> identify -> bind -> assess -> decide -> settle  (`stages`)
          -> enforce_request -> record  (`stages`, `conclusion`)

Law: unknown, missing, slow, undefined or raised means denied, with a stable reason. What is open is judged again by
the same stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.canonical import admit
from gateway.core.capabilities import EdgeCapabilities
from gateway.core.reasons import Refusal
from gateway.core.request import IpNetwork, Peer, RawRequest, RequestFacts, RequestLimits
from gateway.pipeline.conclusion import Conclusion, Outcome
from gateway.pipeline.context import DecisionContext
from gateway.pipeline.deadline import within_deadline
from gateway.pipeline.headers import Forward
from gateway.pipeline.interaction import Interaction
from gateway.pipeline.stages import StagePorts, enforce_request, run_stages
from gateway.pipeline.verdicts import InteractionStarter, Verdict
from gateway.replies.replies import Reply

_LIMITS = RequestLimits()
_REEVALUATION_S = 2.0  # what is open is in doubt after that


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a request head is admitted by. `judged_headers`: those the policies can read, None for all.

    `encoded_slash`: some route wants `%2F` in a path.
    """

    limits: RequestLimits = _LIMITS
    trusted_proxies: Sequence[IpNetwork] = ()
    judged_headers: frozenset[str] | None = None
    own_ports: frozenset[int] = frozenset()
    encoded_slash: bool = False

    def admit(self, raw: RawRequest, peer: Peer) -> RequestFacts | Refusal:
        """Stage 1. The canonical request, or `malformed_request`."""
        return admit(
            raw,
            peer,
            self.limits,
            self.trusted_proxies,
            self.judged_headers,
            self.own_ports,
            encoded_slash=self.encoded_slash,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Everything one generation of the configuration needs to judge requests; replaced as a whole on reload.

    `starter` sends people to sign in or to prove a factor; None where nobody can. `deadline_s` bounds a decision.
    """

    ports: StagePorts
    conclusion: Conclusion
    admission: Admission = Admission()
    starter: InteractionStarter | None = None
    deadline_s: float = 15.0

    async def judge(
        self, raw: RawRequest, peer: Peer, capabilities: EdgeCapabilities, flaw: Refusal | None = None
    ) -> Verdict:
        """Stages 1 to 10 and 13 for one request of an edge with these capabilities. Never raises; it denies.

        `flaw`: what is wrong with the request according to the edge that read it.
        """
        context = DecisionContext.of_request(peer, capabilities)
        work = self._judge(context, raw, flaw)
        return await within_deadline(context, work, self.deadline_s, self.conclusion.conclude_failure)

    async def reevaluate(self, forward: Forward, *, in_use: bool = False) -> Reply | None:
        """Judge a request that is under way as it would be now; None as long as it may go on. Never raises.

        `in_use`: somebody has used it since it was judged last, which keeps a session alive. Nothing that is good once
        is asked for again. Only a verdict that changed is recorded.
        """
        context = DecisionContext.of_open_request(forward, in_use=in_use)
        deadline_s = min(self.deadline_s, _REEVALUATION_S)
        return await within_deadline(context, self._reevaluate(context), deadline_s, self.conclusion.conclude_failure)

    def refuse(self, facts: RequestFacts | None, code: str, decision_id: str = "") -> Reply:
        """A denial outside the stages (the upstream failed, a time-out, access taken away)."""
        return self.conclusion.refuse(facts, code, decision_id)

    @property
    def interaction(self) -> Interaction:
        """Where the requests go that a person or the gateway itself has to do something about."""
        return Interaction(conclusion=self.conclusion, starter=self.starter, deadline_s=self.deadline_s)

    async def _judge(self, context: DecisionContext, raw: RawRequest, flaw: Refusal | None) -> Verdict:
        return self.conclusion.conclude(context, flaw or await self._outcome(context, raw))

    async def _outcome(self, context: DecisionContext, raw: RawRequest) -> Outcome:
        facts = self.admission.admit(raw, context.peer)
        if isinstance(facts, Refusal):
            return facts
        context.facts = facts
        outcome = await run_stages(context, self.ports)
        return outcome if outcome is not None else enforce_request(context, self.ports)

    async def _reevaluate(self, context: DecisionContext) -> Reply | None:
        outcome = await run_stages(context, self.ports)
        if outcome is None:
            return None
        verdict = self.conclusion.conclude(context, outcome)
        if isinstance(verdict, Reply):
            return verdict
        code = outcome.reason if isinstance(outcome, Refusal) else "gateway_error"
        return self.refuse(context.facts, code, context.decision_id)
