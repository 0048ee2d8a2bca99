"""What the pipeline says of a request, and who carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.decision import StepUp
from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.pipeline.headers import Forward
from gateway.replies.replies import Reply


@dataclass(frozen=True, slots=True)
class InteractionRequired:
    """A person has something to do before this request can go on; with its body (if small) to `interaction.answer`.

    `step_up` is what has to be proven, None for a sign-in; `fresh`: a new one, though a session is there. `reply` is
    the answer where the request cannot wait.
    """

    decision_id: str
    facts: RequestFacts
    route: Route
    reasons: tuple[str, ...]
    reply: Reply
    step_up: StepUp | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """The request is for the gateway itself (enrolment, JWKS, CRL, metadata); `device` is the peer's, if any."""

    facts: RequestFacts
    device: Device | None


type Verdict = Forward | LocalRequest | InteractionRequired | Reply


class InteractionStarter(Protocol):
    """Where people are sent to do something first; the request waits meanwhile. Raises StoreDown."""

    async def start(
        self,
        facts: RequestFacts,
        route: Route,
        body: bytes | None,
        *,
        fresh: bool = False,
        step_up: StepUp | None = None,
        reasons: Sequence[str] = (),
    ) -> Redirect | Refusal:
        """Where to sign in, or to prove what `step_up` says; `body` None is one that is not there as a whole."""


class ReactionHandler(Protocol):
    """Does what policy wants beside a refusal."""

    async def react(
        self, wanted: Sequence[str], identity: Identity | None, session: Session | None, cause: str
    ) -> Sequence[str]:
        """What was done. Raises StoreDown."""


class QuarantineCheck(Protocol):
    """Stage 2."""

    def check(self) -> Refusal | None:
        """A Refusal while this node is quarantined."""


class DecisionMetrics(Protocol):
    """What the pipeline counts."""

    def decision(self, service: str, effect: str, reason: str, seconds: float, *, zero_log: bool) -> None:
        """One decision was made; a zero-log one leaves no trace but a number."""
