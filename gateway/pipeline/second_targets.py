"""Stage 8 for requests that name two resources: each is routed and decided, and the strictest answer counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway.core.decision import Decision
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.routes import Route, RouteTable
from gateway.core.second_targets import SecondTarget, at_prefix, second_targets

type Ask = Callable[[RequestFacts, Route], Awaitable[Decision | Refusal]]


async def decide_every_target(
    facts: RequestFacts, route: Route, routes: RouteTable, ask: Ask, *, has_device: bool
) -> Decision | Refusal:
    """The decision about a request and about whatever else it names, with the obligations of all of them.

    A refusal, or a decision that is not "allow", ends it. `malformed_request` for a target that is no resource of the
    same service.
    """
    decision = await ask(facts, route)
    if isinstance(decision, Refusal) or decision.effect != "allow":
        return decision
    targets = second_targets(facts)
    if isinstance(targets, Refusal):
        return targets
    for target in targets:
        for other in _requests(target, routes):
            # A rule about methods is asked for the one that came: what COPY writes need not be open to PUT.
            other_route = routes.match(replace(other, method=facts.method) if other.method == "PUT" else other)
            if isinstance(other_route, Refusal):
                return other_route
            if other_route.service != route.service:
                return Refusal("malformed_request", "a target of another service")
            if other_route.device_required and not has_device:
                return Refusal("device_required")
            outcome = decision if (other, other_route) == (facts, route) else await ask(other, other_route)
            if isinstance(outcome, Refusal) or outcome.effect != "allow":
                return outcome
            more = tuple(one for one in outcome.obligations if one not in decision.obligations)
            decision = replace(decision, obligations=(*decision.obligations, *more))
    return decision


def _requests(target: SecondTarget, routes: RouteTable) -> list[RequestFacts]:
    """The requests for the target, and for each rule about something below a tree that is moved or copied."""
    prefixes = routes.below(target.requests[0]) if target.tree else ()
    return [*target.requests, *(at_prefix(one, prefix) for prefix in prefixes for one in target.requests)]
