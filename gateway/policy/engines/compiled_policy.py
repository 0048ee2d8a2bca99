"""Compiled Rego: modules and data that OPA has checked together, ready to be evaluated, tested and explained."""

from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.policy.engines.opa_library import OpaLibrary, PolicyProblem, PolicyRejected, library

type Module = tuple[str, str]
"""A module's file name and its source."""

_TICKETS = itertools.count(1)


class EvaluationFailed(RuntimeError):
    """OPA could not evaluate this input: `problem` has the code and the place."""

    def __init__(self, problem: PolicyProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class EvaluationCancelled(RuntimeError):
    """The evaluation's budget is spent, or it was cancelled."""


class CompiledPolicy:
    """Policies in the library's memory, until `close` or the garbage collector frees them. Any thread may evaluate."""

    def __init__(
        self, opa: OpaLibrary, handle: int, reads: Sequence[Sequence[str]], packages: Mapping[str, Sequence[str]]
    ) -> None:
        self._opa = opa
        self._handle = handle
        self._free = weakref.finalize(self, _free, opa, handle)
        self.reads = tuple(tuple(path) for path in reads)
        """The parts of the input that the entry point can read; one empty path is all of it."""
        self.packages = {name: tuple(path) for name, path in packages.items()}
        """File name -> the path of its package below data."""

    @classmethod
    def load(
        cls, modules: Sequence[Module], data_json: bytes = b"{}", *, entry: str = "", impure: bool = False
    ) -> CompiledPolicy:
        """Compile. Raises `PolicyRejected` with every problem OPA sees, `OpaUnavailable`.

        `entry`: what `evaluate` asks for, a reference below data; `impure`: every builtin that OPA has is allowed.
        """
        opa = library()
        sources = [{"name": name, "text": text} for name, text in modules]
        loaded = opa.call("load", data_json, modules=sources, entry=entry, impure=impure)
        return cls(opa, loaded["handle"], loaded["reads"], loaded["packages"])

    def evaluate_here(self, document: bytes, budget_s: float) -> object:
        """The entry point's answer, None when undefined, in the event loop's thread.

        Raises `EvaluationCancelled` past the budget, `EvaluationFailed`.
        """
        return _answer(self._opa.evaluate_here(self._handle, document, budget_s))

    def evaluate(self, document: bytes, budget_s: float, ticket: int = 0) -> object:
        """As `evaluate_here`, in any thread, while other Python threads run."""
        return _answer(self._opa.evaluate_beside(self._handle, document, budget_s, ticket))

    @staticmethod
    def new_ticket() -> int:
        """A number by which one evaluation can be cancelled."""
        return next(_TICKETS)

    def cancel(self, ticket: int) -> None:
        """End the evaluation with this ticket."""
        self._opa.cancel(ticket)

    def query(
        self, text: str, document: bytes = b"", *, deadline_s: float = 5.0, lenient: bool = False
    ) -> Sequence[Mapping[str, Any]]:
        """Any query: what its variables are, for each result. Raises `PolicyRejected`."""
        request = {"query": text, "deadline_ms": int(deadline_s * 1000), "lenient": lenient}
        results: list[Mapping[str, Any]] = self._opa.call("query", document, handle=self._handle, **request)["results"]
        return results

    def check(
        self, input_schema: object = None, data_schema: object = None, answer_members: Sequence[str] = ()
    ) -> Sequence[PolicyProblem]:
        """What is well formed and says nothing, because a name in it is wrong (check.go)."""
        found = self._opa.call(
            "check",
            handle=self._handle,
            input_schema=input_schema,
            data_schema=data_schema,
            answer_members=list(answer_members),
        )
        return [PolicyProblem.read(problem) for problem in found["problems"]]

    def strict_problems(self) -> Sequence[PolicyProblem]:
        """What OPA's strict mode objects to: unused variables and imports, duplicate imports, deprecated builtins."""
        return [PolicyProblem.read(raw) for raw in self._opa.call("strict", handle=self._handle)["problems"]]

    def explain(self, document: bytes, deadline_s: float = 5.0) -> Mapping[str, Any]:
        """{answer, fired, failed}: which rules gave something, and what stopped each of the others."""
        return self._opa.call("explain", document, handle=self._handle, deadline_ms=int(deadline_s * 1000))

    def dependencies(self) -> Mapping[str, Sequence[str]]:
        """{reads, input, data, rules}: what the entry point depends on."""
        return self._opa.call("dependencies", handle=self._handle)

    def annotations(self) -> Sequence[Mapping[str, Any]]:
        """Every metadata annotation: {path, annotations, file, row}."""
        found: list[Mapping[str, Any]] = self._opa.call("inspect", handle=self._handle)["annotations"]
        return found

    def scaffold(self) -> Sequence[str]:
        """For each package a module that declares every rule of it and gives none a value (scaffold.go)."""
        modules: list[str] = self._opa.call("scaffold", handle=self._handle)["modules"]
        return modules

    def close(self) -> None:
        """Free it. An evaluation that is running ends as it would have."""
        self._free()


def _free(opa: OpaLibrary, handle: int) -> None:
    opa.call("free", handle=handle)


def _answer(raw: bytes) -> object:
    letter = raw[:1]
    if letter == b"A":
        return json.loads(raw[1:])
    if letter == b"U":
        return None
    if letter == b"T":
        raise EvaluationCancelled
    raise EvaluationFailed(PolicyProblem.read(json.loads(raw[1:])))


__all__ = ["CompiledPolicy", "EvaluationCancelled", "EvaluationFailed", "Module", "PolicyProblem", "PolicyRejected"]
