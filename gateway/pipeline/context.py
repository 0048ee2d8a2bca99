"""Decision context: one request on its way through the stages, as far as it got."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.core.capabilities import EdgeCapabilities
from gateway.core.decision import NO_SIGNAL, Decision, RiskReport
from gateway.core.ports.pipeline import Network
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.obligations.plan import NO_PLAN, Plan
from gateway.pipeline.headers import Forward

UNKNOWN_NETWORK = Network()
# Random for each process, so that no two processes ever name two decisions alike.
_EPOCH = secrets.token_hex(8)
_NUMBERS = itertools.count(1)


def new_decision_id() -> str:
    """A name for one decision: unique, not secret."""
    return f"{_EPOCH}{next(_NUMBERS):08x}"


@dataclass(slots=True)
class DecisionContext:
    """What the stages have found out about one request. Each stage fills in its own fields; nothing is taken back.

    `previous` is the Forward under way when an open request is judged again, and None for a new request. `in_use`:
    somebody has used the open request since it was judged last, which keeps a session alive. `is_late`: the deadline
    is over. `timings_us` has the time that each stage took.
    """

    peer: Peer
    decision_id: str
    started_ns: int
    capabilities: EdgeCapabilities
    previous: Forward | None = None
    in_use: bool = True
    stage: str = "admit"
    entered_ns: int = 0
    timings_us: dict[str, int] = field(default_factory=dict)
    facts: RequestFacts | None = None
    route: Route | None = None
    device: Device | None = None
    identity: Identity | None = None
    session: Session | None = None
    network: Network = UNKNOWN_NETWORK
    risk: RiskReport = NO_SIGNAL
    decision: Decision | None = None
    plan: Plan = NO_PLAN
    reactions: Sequence[str] = ()
    is_late: bool = False

    @classmethod
    def of_request(cls, peer: Peer, capabilities: EdgeCapabilities) -> DecisionContext:
        """The context of a request that has just arrived."""
        now_ns = time.perf_counter_ns()
        return cls(peer, new_decision_id(), now_ns, capabilities, entered_ns=now_ns)

    @classmethod
    def of_open_request(cls, previous: Forward, *, in_use: bool) -> DecisionContext:
        """The context of a request that is under way: its facts and its decision id stay."""
        now_ns = time.perf_counter_ns()
        context = cls(previous.facts.peer, previous.decision_id, now_ns, previous.capabilities, previous, in_use)
        context.entered_ns = now_ns
        context.facts, context.route = previous.facts, previous.route
        return context

    @property
    def admitted(self) -> RequestFacts:
        """The facts, for every stage after `admit`. Raises RuntimeError before it."""
        if self.facts is None:
            raise RuntimeError("no facts yet")
        return self.facts

    @property
    def matched(self) -> Route:
        """The route, for every stage that only a service's request reaches. Raises RuntimeError without one."""
        if self.route is None:
            raise RuntimeError("no route")
        return self.route

    def enter(self, stage: str) -> None:
        """Begin a stage; the time since the last one began belongs to that one."""
        now_ns = time.perf_counter_ns()
        self.timings_us[self.stage] = (now_ns - self.entered_ns) // 1000
        self.stage, self.entered_ns = stage, now_ns

    def give_up(self, task: asyncio.Task[Any]) -> None:
        """The deadline is over."""
        self.is_late = True
        task.cancel()
