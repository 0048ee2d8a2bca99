"""Obligations: what policy demands beside its effect, planned by phase and enforced by plugins.

Law: a plugin can only tighten. After each call the plan looks for itself that no framing, credential or header of the
gateway was made up, and whatever a plugin raises becomes `ObligationFailed`, which is a denial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from gateway.core.decision import Obligation
from gateway.core.header_names import is_field, is_framing, is_ours, is_reserved
from gateway.core.obligations import Obliger
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts

Headers = list[tuple[str, str]]
PHASES = frozenset({"request", "response", "body"})


class ObligationFailed(Exception):
    """An obligation could not be enforced: answer `obligation_failed` and send nothing of the upstream's.

    Its text names the plugin, the kind of error and the line, never a value of the request or the response.
    """


@dataclass(frozen=True, slots=True)
class Step:
    """One obligation with its validated parameters."""

    obliger: Obliger
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """The obligations of one decision, by phase. `kinds` is for the record."""

    kinds: tuple[str, ...] = ()
    at_request: tuple[Step, ...] = ()
    at_response: tuple[Step, ...] = ()
    at_body: tuple[Step, ...] = ()

    @property
    def needs_body(self) -> bool:
        """Whether the edge must hold the whole response body back for `enforce_body`."""
        return bool(self.at_body)

    def enforce_request(self, headers: Headers, facts: RequestFacts) -> Refusal | None:
        """Change the headers that go upstream in place, or refuse. Raises `ObligationFailed`."""
        for step in self.at_request:
            before = list(headers)
            refusal = _call(step, step.obliger.request, headers, step.params, facts)
            if isinstance(refusal, Refusal):
                return refusal
            if refusal is not None:
                raise ObligationFailed(f"{step.obliger.kind}: answered neither None nor a refusal")
            _look_at(step, before, headers, is_reserved)
        return None

    def enforce_response(self, headers: Headers) -> None:
        """Change the response's headers in place. Raises `ObligationFailed`."""
        for step in self.at_response:
            before = list(headers)
            _call(step, step.obliger.response, headers, step.params)
            _look_at(step, before, headers, lambda name: is_framing(name) or is_ours(name))

    def enforce_body(self, content_type: str, body: bytes) -> bytes:
        """The body to send instead; the edge sets its length. Raises `ObligationFailed`: the body is then dropped."""
        for step in self.at_body:
            changed = _call(step, step.obliger.body, content_type, body, step.params)
            if not isinstance(changed, bytes):
                raise ObligationFailed(f"{step.obliger.kind}: answered no bytes")
            body = changed
        return body


NO_PLAN = Plan()


class Obligations:
    """The known obligations, in the order in which they are enforced, whatever the order of policy's answer."""

    def __init__(self, plugins: Iterable[Obliger]) -> None:
        self._known: dict[str, tuple[int, Obliger]] = {}
        for place, plugin in enumerate(plugins):
            if plugin.kind in self._known or not plugin.phases or plugin.phases - PHASES:
                raise ValueError(f"obligation plugin {plugin.kind!r} is there twice or names an unknown phase")
            self._known[plugin.kind] = place, plugin

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds a policy may demand."""
        return tuple(self._known)

    def plan(self, obligations: tuple[Obligation, ...], supported_phases: frozenset[str]) -> Plan | Refusal:
        """The plan for one decision; `NO_PLAN` when there is nothing to do.

        Answers Refusal `obligation_unsupported` for an unknown kind, for parameters its plugin does not take and for a
        phase that this edge cannot do.
        """
        if not obligations:
            return NO_PLAN
        steps: list[tuple[int, Step]] = []
        for obligation in obligations:
            known = self._known.get(obligation.kind)
            if known is None:
                return Refusal("obligation_unsupported", "unknown kind")
            place, plugin = known
            if plugin.phases - supported_phases:
                return Refusal("obligation_unsupported", f"{plugin.kind}: this edge lacks a phase")
            try:
                params = plugin.parse(obligation.params)
            except ValueError:
                return Refusal("obligation_unsupported", f"{plugin.kind}: parameters")
            steps.append((place, Step(plugin, params)))
        ordered = [step for _, step in sorted(steps, key=lambda step: step[0])]

        def acting_in(phase: str) -> tuple[Step, ...]:
            return tuple(step for step in ordered if phase in step.obliger.phases)

        return Plan(
            kinds=tuple(step.obliger.kind for step in ordered),
            at_request=acting_in("request"),
            at_response=acting_in("response"),
            at_body=acting_in("body"),
        )


def _call(step: Step, method: Callable[..., object], *args: object) -> object:
    try:
        return method(*args)
    except Exception as problem:  # noqa: BLE001 - raised again under one name, never swallowed
        # The message and the chain are cut off: they may hold a piece of the body.
        trace = problem.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
        raise ObligationFailed(f"{step.obliger.kind}: {type(problem).__name__} at {place}") from None


def _look_at(step: Step, before: Headers, headers: Headers, forbidden: Callable[[str], bool]) -> None:
    there = Counter(before)
    for field in headers:
        if there[field]:
            there[field] -= 1
        elif forbidden(field[0]) or not is_field(*field):
            raise ObligationFailed(f"{step.obliger.kind}: made a header it may not make")
