"""OPA's own conformance cases, read from the source of the module that the library is built from.

Each is evaluated by the embedded engine and by a real server; both must give what the case says.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.policy.engines.compiled_policy import CompiledPolicy, PolicyRejected
from gateway.policy.engines.opa_bridge import build
from tests.support.opa_world import Opas

type Outcome = tuple[str, Any]
"""("results", bindings) or ("error", the problem, None from a server)."""


def cases_folder() -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go on this machine, so no source of OPA")
    command = [go, "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa"]
    done = subprocess.run(command, cwd=build.FOLDER, capture_output=True, text=True, check=False)
    folder = Path(done.stdout.strip() or "/nowhere") / "v1/test/cases/testdata/v1"
    if not folder.is_dir():
        pytest.skip("the source of OPA is not in the module cache")
    return folder


class _Loader(yaml.CSafeLoader):
    """YAML as OPA reads it: a date is a text, and so is `on`."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for letter, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), ["t", "f"])


def conformance_cases() -> list[dict[str, Any]]:
    folder = cases_folder()
    return [case for file in sorted(folder.rglob("*.yaml")) for case in yaml.load(file.read_text(), _Loader)["cases"]]  # noqa: S506  (a safe loader)


def query_of(case: dict[str, Any]) -> str:
    """The query; an input that JSON cannot say (a set) comes in by `with`."""
    return f"{case['query']} with input as {case['input_term']}" if "input_term" in case else str(case["query"])


def modules_of(case: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f"test-{number}.rego", text) for number, text in enumerate(case.get("modules") or ())]


def input_of(case: dict[str, Any]) -> bytes:
    return json.dumps(case["input"]).encode() if "input" in case and "input_term" not in case else b""


def embedded(case: dict[str, Any], *, lenient: bool) -> Outcome:
    try:
        policy = CompiledPolicy.load(modules_of(case), json.dumps(case.get("data") or {}).encode(), impure=True)
        return "results", [dict(found) for found in policy.query(query_of(case), input_of(case), lenient=lenient)]
    except PolicyRejected as rejected:
        return "error", rejected.problems[0]


def is_pure(case: dict[str, Any]) -> bool:
    """Whether the gateway would load it: what the clock or the process says is not the same twice."""
    modules = [*modules_of(case), ("query", f"package query\n\nr if {{ {query_of(case)} }}")]
    with contextlib.suppress(PolicyRejected):
        CompiledPolicy.load(modules, impure=True)
        try:
            CompiledPolicy.load(modules)
        except PolicyRejected:
            return False
    return True


def is_refused_by_every_server(outcome: Outcome) -> bool:
    """Cases for OPA's evaluator alone: rules where data stand, and functions that only its own tests define."""
    return outcome[0] == "error" and bool(
        re.search(r"conflicting rule for data path|undefined function test\.", outcome[1].message)
    )


class Server:
    """A real server that gets the modules of one case after another."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=30)
        self._scaffold: list[str] = []
        self._present: set[str] = set()

    def close(self) -> None:
        self._http.close()

    def answer(self, case: dict[str, Any]) -> Outcome:
        self._remove_all()
        assert self._http.put("/v1/data", json=case.get("data") or {}).status_code == httpx.codes.NO_CONTENT
        modules = modules_of(case)
        with contextlib.suppress(PolicyRejected):
            self._scaffold = list(CompiledPolicy.load(modules, impure=True).scaffold())
        if not self._each(modules, self._put):
            return "error", None
        request: dict[str, Any] = {"query": query_of(case)}
        if input_of(case):
            request["input"] = case["input"]
        answer = self._http.post("/v1/query", json=request)
        if answer.status_code != httpx.codes.OK:
            return "error", None
        return "results", answer.json().get("result", [])

    def _remove_all(self) -> None:
        # What a rule of the last case may stand in the way of.
        self._http.put("/v1/data", json={})
        assert self._each(sorted(self._present), self._delete)
        self._scaffold = []

    def _each[T](self, of: Sequence[T], act: Callable[[T], bool]) -> bool:
        """Whether the server took each: in some order, or else while a scaffold declares every rule."""
        left = list(of)
        for _ in of:
            left = [item for item in left if not act(item)]
        if not left:
            return True
        for number, text in enumerate(self._scaffold):
            self._put((f"scaffold-{number}", text))
        left = [item for item in left if not act(item)]
        for number in range(len(self._scaffold)):
            self._delete(f"scaffold-{number}")
        return not left

    def _put(self, module: tuple[str, str]) -> bool:
        name, text = module
        taken = self._http.put(f"/v1/policies/{name}", content=text.encode()).status_code == httpx.codes.OK
        self._present |= {name} if taken else set()
        return taken

    def _delete(self, name: str) -> bool:
        done = self._http.delete(f"/v1/policies/{name}").status_code == httpx.codes.OK
        self._present -= {name} if done else set()
        return done


def same(one: Outcome, other: Outcome) -> bool:
    return one[0] == other[0] and (one[0] == "error" or ordered(one[1]) == ordered(other[1]))


def ordered(bindings: list[dict[str, Any]]) -> list[str]:
    """Results in no order of their own; names that the compiler made up are no results."""
    return sorted(
        json.dumps({name: plain(value) for name, value in found.items() if name[0] not in "_$"}, sort_keys=True)
        for found in bindings
    )


def fits(case: dict[str, Any], outcome: Outcome) -> bool:
    """Whether this is what the case wants."""
    if "want_error" in case or "want_error_code" in case:
        return outcome[0] == "error" and case.get("want_error_code") in {None, outcome[1].code}
    if "want_result" in case:
        wanted = case["want_result"] or []
        if case.get("sort_bindings"):
            return outcome[0] == "results" and sorted_values(outcome[1]) == sorted_values(wanted)
        return outcome[0] == "results" and ordered(outcome[1]) == ordered(wanted)
    if "want_defined" in case:
        return outcome[0] == "results" and bool(outcome[1]) == case["want_defined"]
    return True


def plain(value: Any) -> Any:
    """A value in which 1.0 is 1, as it is in Rego."""
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def sorted_values(bindings: list[dict[str, Any]]) -> list[Any]:
    """Bindings whose lists are compared as sets."""

    def flat(value: Any) -> Any:
        if isinstance(value, list):
            return sorted((flat(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
        return plain(value)

    return [flat(list(found.values())) for found in bindings]


@pytest.mark.timeout(600)
def test_every_case_of_opa_is_answered_as_it_says_by_both_engines(opas: Opas) -> None:
    cases = conformance_cases()
    count, wrong = Counter[str](), list[Any]()
    with contextlib.closing(Server(opas.start())) as server:
        for case in cases:
            outcome = embedded(case, lenient=not case.get("strict_error"))
            answer = server.answer(case)
            if is_refused_by_every_server(outcome):
                count["refused by both"] += answer[0] == "error"
                continue
            count["as it says"] += (fitting := fits(case, outcome))
            count["alike"] += (alike := not is_pure(case) or same(embedded(case, lenient=True), answer))
            if not fitting or not alike:
                wrong.append((case["note"], case, outcome, answer))
    assert wrong[:1] == []
    assert count["as it says"] == count["alike"] == len(cases) - count["refused by both"] > 1_000
