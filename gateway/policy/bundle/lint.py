"""OPA's problems as problems of a policy folder, each with a fix; and which of them keep a bundle from being loaded.

Law: a rule that objects to nothing because of a wrong name lets everybody in, so a bundle with one is refused: a rule
or a package that the entry point never asks for, and a member of the input, the data or the answer that is not there.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gateway.policy.bundle.model import BundleError
from gateway.policy.contract import ANSWER_MEMBERS
from gateway.policy.engines.compiled_policy import CompiledPolicy, PolicyProblem

_SCHEMAS = Path(__file__).resolve().parents[3] / "policies" / "schema"
_REFUSED = frozenset({"rego_type_error", "unknown_answer_member", "unused_rule", "unused_package"})
_SHOWN_NAMES = 6
_UNSAFE = re.compile(r"var (?P<name>\w+) is unsafe")
_UNDEFINED_FUNCTION = re.compile(r"undefined function (?P<name>[\w.]+)")
_TAKEN = re.compile(r"conflicting rule for data path (?P<path>\S+) found")
_IMPURE = {
    "http.send": "Policies are pure: put what it would fetch into data/ or into the input.",
    "net.lookup_ip_addr": "Policies are pure: put what it would look up into data/ or into the input.",
    "time.now_ns": "Policies are pure: use input.now (seconds since the epoch).",
    "io.jwt.decode_verify": "It looks at the clock: use io.jwt.verify_* and compare with input.now.",
    "opa.runtime": "Policies are pure: put settings into data/.",
    "rand.intn": "Policies are pure: a decision must be repeatable.",
    "uuid.rfc4122": "Policies are pure: a decision must be repeatable.",
    "print": "Remove it: a test in a `*_test.rego` file shows what a rule answers, and may print.",
    "internal.print": "Remove it: a test in a `*_test.rego` file shows what a rule answers, and may print.",
    "trace": "Remove it: a test in a `*_test.rego` file shows what a rule answers.",
}
_FIXES = {
    "rego_parse_error": "Correct the syntax.",
    "rego_unsafe_var_error": "Correct the name, or write `some` or `:=`.",
    "rego_recursion_error": "Rego has no recursion; use walk, or rules that build on each other.",
    "entry_point_missing": "Keep gateway/authz.rego, or write `package gateway.authz` anew.",
    "shadowed_name": "Give the variable another name.",
    "unused_library_rule": "Remove it, or use it.",
    "data_error": "Correct the JSON.",
    "unreported_posture": "Write what must hold as a rule of its own and negate it: `not encrypted`.",
}


def wrong_names(policy: CompiledPolicy, data: Mapping[str, Any]) -> list[BundleError]:
    """What is well formed and says nothing, because a name in it is wrong: reasons not to load a bundle."""
    return [problem for problem in remarks(policy, data) if problem.code in _REFUSED]


def remarks(policy: CompiledPolicy, data: Mapping[str, Any]) -> list[BundleError]:
    """The same, what may not be meant, and what is merely untidy: unused rules of libraries, and shadowed names."""
    schema = _extended(_schema("data"), data)
    return [as_error(problem) for problem in policy.check(_schema("input"), schema, sorted(ANSWER_MEMBERS))]


def warnings(policy: CompiledPolicy, data: Mapping[str, Any]) -> list[BundleError]:
    """What loads and may not mean what its author meant."""
    return [problem for problem in remarks(policy, data) if problem.code == "unreported_posture"]


def strict_problems(policy: CompiledPolicy) -> list[BundleError]:
    """What OPA's strict mode objects to."""
    return [as_error(problem) for problem in policy.strict_problems()]


def as_error(problem: PolicyProblem) -> BundleError:
    """A problem of OPA with its place, and a fix."""
    return BundleError(
        problem.file or "policies",
        problem.row,
        _message(problem),
        _fix(problem),
        column=problem.column,
        width=problem.width,
        code=problem.code,
    )


def _message(problem: PolicyProblem) -> str:
    if taken := _TAKEN.search(problem.message):
        return f"data.{taken['path'].replace('/', '.')} is data, and a rule as well"
    details = [line.strip() for line in problem.details if not line.strip().startswith("^")]
    if problem.code == "rego_type_error" and problem.name == "" and details:
        return f"{problem.message} ({'; '.join(details)})"
    return problem.message


def _fix(problem: PolicyProblem) -> str:
    if problem.known:
        return _meant(problem.name, problem.known)
    if function := _UNDEFINED_FUNCTION.search(problem.message):
        name = function["name"]
        return _IMPURE.get(name, "Correct the name, or define the function.")
    if _TAKEN.search(problem.message):
        return "Give the rule or its package another name."
    if problem.code == "rego_unsafe_var_error" and (unsafe := _UNSAFE.search(problem.message)):
        known = ("input", "data")
        close = difflib.get_close_matches(unsafe["name"], known, 1)
        return f"Did you mean {close[0]}?" if close else _FIXES[problem.code]
    return _FIXES.get(problem.code, "Correct it.")


def _meant(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"Did you mean {close[0]}?"
    more = ", ..." if len(known) > _SHOWN_NAMES else ""
    return f"Correct the name, or remove it. There is {', '.join(known[:_SHOWN_NAMES])}{more}."


@cache
def _schema(name: str) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = json.loads((_SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def _extended(schema: Mapping[str, Any], data: object) -> Mapping[str, Any]:
    """The schema with whatever else the data hold: a policy folder may add to the settings."""
    members = schema.get("properties")
    if not isinstance(data, Mapping) or members is None:
        return schema
    more: dict[str, Any] = {name: {} for name in data if name not in members}
    known = {name: _extended(member, data.get(name)) for name, member in members.items()}
    return {**schema, "properties": {**known, **more}}
