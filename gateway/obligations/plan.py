"""Obligations: what policy demands beside its effect, planned by capability and enforced by plugins.

Law: a plugin can only tighten. After each call the plan verifies that no framing header, no credential and no header of
the gateway was made up, and whatever a plugin raises becomes `ObligationFailed`, which is a denial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.core.capabilities import ALL_BODIES, EdgeCapabilities
from gateway.core.decision import Obligation
from gateway.core.header_names import is_field, is_framing, is_ours, is_reserved
from gateway.core.obligations import (
    BodyHandler,
    Headers,
    ObligationContext,
    ObligationHandler,
    Params,
    RequestHeadHandler,
    ResponseHeadHandler,
)
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.obligations.body import (
    OpenBody,
    ask_for_whole,
    open_body,
    request_info,
    response_info,
    without_description,
)
from gateway.obligations.steps import ObligationFailed, Step, run

# Messages of their own on one connection: no body that a transform could open.
_NO_BODY_PROTOCOLS = frozenset({"websocket", "grpc"})


@dataclass(frozen=True, slots=True)
class Plan:
    """The obligations of one decision, by capability. `kinds` is for the record.

    `demands` are kinds and parameters as policy named them: what tells one plan from another, whoever made it.
    """

    kinds: tuple[str, ...] = ()
    demands: tuple[tuple[str, Params], ...] = ()
    request_heads: tuple[Step[RequestHeadHandler], ...] = ()
    response_heads: tuple[Step[ResponseHeadHandler], ...] = ()
    request_bodies: tuple[Step[BodyHandler], ...] = ()
    response_bodies: tuple[Step[BodyHandler], ...] = ()

    def enforce_request(self, headers: Headers, facts: RequestFacts) -> list[tuple[str, str]] | Refusal:
        """The headers that go upstream, or a refusal. Raises ObligationFailed."""
        for step in self.request_heads:
            outcome: object = run(step.kind, step.handler.request_head, list(headers), step.params, facts)
            if isinstance(outcome, Refusal):
                return outcome
            headers = _verify_headers(step.kind, headers, outcome, is_reserved)
        if self.request_bodies and isinstance(info := request_info(facts), Refusal):
            return info
        # Last, so that no head handler brings an encoding back.
        return ask_for_whole(headers, facts.method) if self.response_bodies else list(headers)

    def enforce_response(self, headers: Headers) -> list[tuple[str, str]]:
        """The response's headers, or trailers, as they go out. Raises ObligationFailed."""
        for step in self.response_heads:
            outcome: object = run(step.kind, step.handler.response_head, list(headers), step.params)
            headers = _verify_headers(step.kind, headers, outcome, lambda name: is_framing(name) or is_ours(name))
        return without_description(headers, "response") if self.response_bodies else list(headers)

    def open_request_body(self, facts: RequestFacts, context: ObligationContext) -> OpenBody | Refusal | None:
        """The transform of a request's body, None without one, or a refusal."""
        if not self.request_bodies:
            return None
        info = request_info(facts)
        return info if isinstance(info, Refusal) else open_body(self.request_bodies, "request", info, context)

    def open_response_body(
        self, method: str, status: int, headers: Headers, context: ObligationContext, *, has_body: bool
    ) -> OpenBody | Refusal | None:
        """The transform of a response's body, None without one, or a refusal; `headers` are the upstream's own."""
        if not self.response_bodies:
            return None
        info = response_info(method, status, headers)
        if isinstance(info, Refusal) or not has_body:
            return info if isinstance(info, Refusal) else None
        return open_body(self.response_bodies, "response", info, context)


NO_PLAN = Plan()


@dataclass(frozen=True, slots=True)
class _Registered:
    """One known plugin by capability; `position` is its place in the order."""

    position: int
    plugin: ObligationHandler
    request_head: RequestHeadHandler | None
    response_head: ResponseHeadHandler | None
    body: BodyHandler | None

    def is_within(self, capabilities: EdgeCapabilities) -> bool:
        """Whether an edge with these capabilities can enforce it."""
        return (
            (self.request_head is None or "request" in capabilities.heads)
            and (self.response_head is None or "response" in capabilities.heads)
            and (self.body is None or (self.body.direction, self.body.mode) in capabilities.bodies)
        )


class Obligations:
    """The known obligations, in the order in which they are enforced, whatever the order of policy's answer."""

    def __init__(self, plugins: Iterable[ObligationHandler]) -> None:
        self._known: dict[str, _Registered] = {}
        for position, plugin in enumerate(plugins):
            if plugin.kind in self._known:
                raise ValueError(f"two obligation plugins are called {plugin.kind!r}")
            registered = _Registered(
                position,
                plugin,
                plugin if isinstance(plugin, RequestHeadHandler) else None,
                plugin if isinstance(plugin, ResponseHeadHandler) else None,
                plugin if isinstance(plugin, BodyHandler) else None,
            )
            body = registered.body
            if registered.request_head is None and registered.response_head is None and body is None:
                raise ValueError(f"the obligation plugin {plugin.kind!r} has no capability")
            if body is not None and (body.direction, body.mode) not in ALL_BODIES:
                raise ValueError(f"the obligation plugin {plugin.kind!r} has an unknown direction or mode")
            self._known[plugin.kind] = registered

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds a policy may demand."""
        return tuple(self._known)

    def plan(
        self, obligations: tuple[Obligation, ...], facts: RequestFacts, capabilities: EdgeCapabilities
    ) -> Plan | Refusal:
        """The plan for one decision; `NO_PLAN` when there is nothing to do.

        Answers Refusal `obligation_unsupported` for an unknown kind, for parameters its plugin does not take, for a
        body of a protocol that has none (WebSocket, gRPC) and for what this edge cannot do.
        """
        if not obligations:
            return NO_PLAN
        chosen: list[tuple[_Registered, Params]] = []
        for obligation in obligations:
            known = self._known.get(obligation.kind)
            if known is None:
                return Refusal("obligation_unsupported", "unknown kind")
            kind = known.plugin.kind
            if not known.is_within(capabilities):
                return Refusal("obligation_unsupported", f"{kind}: the edge {capabilities.edge!r} cannot do this")
            if known.body is not None and facts.protocol in _NO_BODY_PROTOCOLS:
                return Refusal("obligation_unsupported", f"{kind}: {facts.protocol} has no such body")
            try:
                chosen.append((known, known.plugin.parse(obligation.params)))
            except ValueError:
                return Refusal("obligation_unsupported", f"{kind}: parameters")
        chosen.sort(key=lambda item: item[0].position)
        bodies = [Step(known.plugin.kind, known.body, params) for known, params in chosen if known.body is not None]
        return Plan(
            kinds=tuple(known.plugin.kind for known, _ in chosen),
            demands=tuple((obligation.kind, obligation.params) for obligation in obligations),
            request_heads=tuple(
                Step(known.plugin.kind, known.request_head, params)
                for known, params in chosen
                if known.request_head is not None
            ),
            response_heads=tuple(
                Step(known.plugin.kind, known.response_head, params)
                for known, params in chosen
                if known.response_head is not None
            ),
            request_bodies=tuple(step for step in bodies if step.handler.direction == "request"),
            response_bodies=tuple(step for step in bodies if step.handler.direction == "response"),
        )


def _verify_headers(
    kind: str, before: Headers, outcome: object, forbidden: Callable[[str], bool]
) -> list[tuple[str, str]]:
    """The headers that a plugin answered. Raises ObligationFailed when it made one that it may not make."""
    if not isinstance(outcome, list | tuple):
        raise ObligationFailed(f"{kind}: answered neither headers nor a refusal")
    known = Counter(before)
    for field in outcome:
        if not (isinstance(field, tuple) and len(field) == 2 and all(isinstance(text, str) for text in field)):  # noqa: PLR2004
            raise ObligationFailed(f"{kind}: answered something else than headers")
        if known[field]:
            known[field] -= 1
        elif forbidden(field[0]) or not is_field(*field):
            raise ObligationFailed(f"{kind}: made a header it may not make")
    return list(outcome)
