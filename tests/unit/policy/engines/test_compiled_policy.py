"""Compiled Rego: problems with their places, and what OPA knows about policies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.policy.engines.compiled_policy import CompiledPolicy, EvaluationFailed, PolicyRejected

POLICIES = Path(__file__).parents[4] / "policies"
ENTRY = "data.gateway.authz.decision"
HEAD = "package gateway.authz\n\n"

INPUT_SCHEMA = json.loads((POLICIES / "schema/input.schema.json").read_text())
MEMBERS = ["effect", "reasons", "obligations", "cache_s", "step_up", "reactions"]


def starter() -> list[tuple[str, str]]:
    files = sorted((POLICIES / "gateway").glob("*.rego"))
    return [(file.name, file.read_text()) for file in files if not file.name.endswith("_test.rego")]


def compiled(body: str, data: str = "{}", **files: str) -> CompiledPolicy:
    modules = [("authz.rego", HEAD + body + "\n"), *((f"{name}.rego", text) for name, text in files.items())]
    return CompiledPolicy.load(modules, data.encode(), entry=ENTRY)


BROKEN = {
    "a brace too few": ("decision := 1 if {", "rego_parse_error", 4),
    "a word too many": ("decision := 1 if true or", "rego_parse_error", 3),
    "an unsafe variable": ("decision := x if y > 1", "rego_unsafe_var_error", 3),
    "an unsafe variable under not": ("decision := 1 if not f(x)\n\nf(y) := y", "rego_unsafe_var_error", 3),
    "recursion of a rule": ("decision := 1 if not decision", "rego_recursion_error", 3),
    "recursion over two rules": ("decision := a\n\na := decision", "rego_recursion_error", 3),
    "recursion of a function": ("decision := f(1)\n\nf(x) := f(x)", "rego_recursion_error", 5),
    "a function that is none": ("decision := nope(1)", "rego_type_error", 3),
    "too few arguments": ("decision := count()", "rego_type_error", 3),
    "an argument of a wrong type": ("decision := count(1)", "rego_type_error", 3),
    "two kinds of one rule": ("decision := 1\n\ndecision contains 2", "rego_type_error", 3),
    "two functions of one name": ("decision := f(1)\n\nf(x) := x\n\nf(x, y) := y", "rego_type_error", 5),
    "two defaults": ("default decision := 1\n\ndefault decision := 2", "rego_type_error", 1),
    "an impure builtin": ('decision := http.send({"method": "get", "url": "http://x"})', "rego_type_error", 3),
    "the clock": ("decision := time.now_ns()", "rego_type_error", 3),
    "chance": ('decision := rand.intn("x", 5)', "rego_type_error", 3),
    "the process": ("decision := opa.runtime()", "rego_type_error", 3),
    "a print": ('decision := 1 if print("x")', "rego_type_error", 3),
    "a name taken from input": ("decision := 1 if { input := 2 }", "rego_compile_error", 3),
    "an import of nothing": ("import foo.bar\n\ndecision := 1", "rego_parse_error", 3),
    "numbers that cannot be": ('decision := 1 + "x"', "rego_type_error", 3),
    "a variable that is assigned twice": ("decision := 1 if { x := 1; x := 2 }", "rego_compile_error", 3),
    "metadata that are no YAML": ("# METADATA\n# title: [\ndecision := 1", "rego_parse_error", 4),
}


@pytest.mark.parametrize("name", BROKEN)
def test_rego_that_does_not_compile_is_refused_at_its_place(name: str) -> None:
    body, code, row = BROKEN[name]
    with pytest.raises(PolicyRejected) as rejected:
        compiled(body)
    problem = rejected.value.problems[0]
    assert (problem.code, problem.file, problem.row) == (code, "authz.rego", row), problem
    assert problem.message
    assert problem.column >= 0


def test_every_syntax_error_of_every_file_is_shown_at_once() -> None:
    with pytest.raises(PolicyRejected) as rejected:
        compiled("decision := {", other="package other\n\nx := ]\n")
    assert {problem.file for problem in rejected.value.problems} == {"authz.rego", "other.rego"}


def test_an_empty_file_one_that_is_no_utf_8_and_a_missing_entry_point_are_refused() -> None:
    for text in ("", "# nothing\n", 'package a\n\nx := "\udc80"\n'):
        with pytest.raises((PolicyRejected, UnicodeEncodeError)):
            compiled("decision := 1", other=text)
    with pytest.raises(PolicyRejected, match="no rule gives") as rejected:
        CompiledPolicy.load([("a.rego", "package gateway.authz\n\nx := 1\n")], entry=ENTRY)
    assert rejected.value.problems[0].code == "entry_point_missing"


def test_a_rule_where_data_stand_is_refused_and_so_are_data_that_are_no_object() -> None:
    with pytest.raises(PolicyRejected, match="conflict"):
        compiled("decision := 1", '{"gateway": {"authz": {"decision": 1}}}')
    for data in ("[]", "{", '"x"'):
        with pytest.raises(PolicyRejected, match="no JSON object"):
            compiled("decision := 1", data)


def test_a_conflict_that_only_the_input_brings_out_is_an_error_of_the_evaluation() -> None:
    policy = compiled("decision := 1 if input.a\n\ndecision := 2 if input.b")
    assert policy.evaluate(b'{"a": true}', 1.0) == 1
    with pytest.raises(EvaluationFailed) as failed:
        policy.evaluate(b'{"a": true, "b": true}', 1.0)
    assert failed.value.problem.code == "eval_conflict_error"
    assert failed.value.problem.row in {3, 5}


def test_a_builtin_that_fails_is_an_error_and_not_undefined() -> None:
    with pytest.raises(EvaluationFailed) as failed:
        compiled("decision := to_number(input.x)").evaluate(b'{"x": "no"}', 1.0)
    assert failed.value.problem.code == "eval_builtin_error"


def test_the_starter_policies_have_nothing_to_object_to() -> None:
    assert [*CompiledPolicy.load(starter(), entry=ENTRY).check(INPUT_SCHEMA, None, MEMBERS)] == []


TYPE, UNUSED, MEMBER = "rego_type_error", "unused_rule", "unknown_answer_member"
WRONG_NAMES = {
    "a member of the input": ('blocks contains "x" if input.identity.depratment', TYPE, "depratment", "department"),
    "through a variable": ('blocks contains "x" if { i := input.device; i.verfied }', TYPE, "verfied", "verified"),
    "in a list": ('blocks contains "x" if { some r in input.identity.roles; r.kye }', TYPE, "kye", "key"),
    "a rule": ('block contains "x" if input.now > 1', UNUSED, "block", "blocks"),
    "a member of the answer": (
        'decision := {"effect": "deny", "reason": []} if input.now',
        MEMBER,
        "reason",
        "reasons",
    ),
}


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_a_wrong_name_is_found_with_its_place_and_what_could_be_meant(name: str) -> None:
    body, code, wrong, meant = WRONG_NAMES[name]
    policy = CompiledPolicy.load([*starter(), ("own.rego", HEAD + body + "\n")], entry=ENTRY)
    [problem] = policy.check(INPUT_SCHEMA, None, MEMBERS)
    assert (problem.code, problem.name, problem.file, problem.row) == (code, wrong, "own.rego", 3)
    assert meant in problem.known
    line = (HEAD + body).splitlines()[2]
    assert line[problem.column - 1 :].strip('"').startswith(wrong)


def test_what_may_be_null_may_be_compared_with_null_and_not_with_a_number() -> None:
    conditions = "input.identity == null\n\tinput.session.elevated_at != null\n\tnull == input.device"
    body = f'blocks contains "x" if {{\n\t{conditions}\n}}'
    policy = CompiledPolicy.load([*starter(), ("own.rego", HEAD + body + "\n")], entry=ENTRY)
    assert [*policy.check(INPUT_SCHEMA)] == []
    wrong = 'blocks contains "x" if input.service.name == 5'
    policy = CompiledPolicy.load([*starter(), ("own.rego", HEAD + wrong + "\n")], entry=ENTRY)
    assert [problem.message for problem in policy.check(INPUT_SCHEMA)] == ["match error"]


def test_a_name_of_data_that_the_schema_does_not_know_is_found() -> None:
    service = {"type": "object", "additionalProperties": False, "properties": {"allow": {"type": "object"}}}
    services = {"type": "object", "additionalProperties": service}
    schema = {"type": "object", "properties": {"gateway": {"type": "object", "properties": {"services": services}}}}
    good = "decision := x if { s := data.gateway.services[input.n]; x := s.allow }"
    good += "\n\nother := data.gateway.services.payroll"
    policy = compiled(good + "\n\nmore := data.mine.x", '{"mine": {"x": 1}}')
    assert {problem.code for problem in policy.check(None, schema)} <= {"unused_rule"}
    found = compiled("decision := x if { s := data.gateway.services[input.n]; x := s.alow }").check(None, schema)
    assert [(problem.name, problem.known) for problem in found] == [("alow", ("allow",))]


def test_a_variable_with_the_name_of_a_rule_or_an_import_is_found() -> None:
    body = "import data.lib\n\ndecision := [limit | some limit in [1]; f(1)]\n\nlimit := 1\n\nf(lib) := lib"
    policy = compiled(body, lib="package lib\n\nx := 1\n")
    found = [problem for problem in policy.check() if problem.code == "shadowed_name"]
    assert [(problem.name, problem.row) for problem in found] == [("limit", 5), ("lib", 9)]


READS = {
    "decision := input.a.b": (("a", "b"),),
    "decision := input": ((),),
    "decision := [input.a[i] | some i in [0]]": (("a",),),
    "decision := x if { x := input.a } else := input.b": (("a",), ("b",)),
    'decision := object.get(input, "x", 1)': ((),),
    "decision := f(input.a)\n\nf(x) := x.y": (("a",),),
    "decision := 1 if { y := input.z; y }\n\nunused := input.q": (("z",),),
    "decision := data.gateway.authz[input.k]\n\na := input.x\n\nb := input.y": None,
    "default decision := 1\n\ndecision := 2 if not helper\n\nhelper if input.a == input.b": (("a",), ("b",)),
    "decision := {k: v | some k, v in input.a; every x in input.c { x }}": (("a",), ("c",)),
    'decision := x if { x := data.gateway.authz.r with input as {"q": input.b} }\n\nr := input.q': ((),),
}


@pytest.mark.parametrize("body", READS)
def test_what_the_entry_point_can_read_is_known(body: str) -> None:
    if READS[body] is None:
        with pytest.raises(PolicyRejected, match="recursive"):
            compiled(body)
    else:
        assert compiled(body).reads == READS[body]


def test_two_inputs_that_agree_in_what_is_read_have_one_answer() -> None:
    """The decision memory relies on it: whatever stands beside what is read changes no answer."""
    settings = json.loads((POLICIES / "data/gateway/settings.json").read_text())
    for file in sorted((POLICIES / "cases").glob("*.json")):
        case = json.loads(file.read_text())
        modules = [*case["modules"].items()] if "modules" in case else starter()
        data = {"gateway": {"services": case["services"], **settings}}
        policy = CompiledPolicy.load(modules, json.dumps(data).encode(), entry=ENTRY)
        answer = policy.evaluate(json.dumps(case["input"]).encode(), 5.0)
        changed = _beside(case["input"], policy.reads, ())
        assert policy.evaluate(json.dumps(changed).encode(), 5.0) == answer, file.name


def _beside(value: object, reads: tuple[tuple[str, ...], ...], at: tuple[str, ...]) -> object:
    if at in reads:
        return value
    if isinstance(value, dict) and any(path[: len(at)] == at for path in reads):
        return {name: _beside(member, reads, (*at, name)) for name, member in value.items()} | {"beside": 1}
    return "changed"


def test_the_dependencies_are_what_opa_deps_says() -> None:
    policy = compiled("decision := x if { x := data.table[input.k] }\n\nunused := input.z", '{"table": {}}')
    assert policy.dependencies() == {
        "reads": [["k"]], "input": ["input.k"], "data": ["data.table"], "rules": ["data.gateway.authz.decision"],
    }  # fmt: skip


def test_an_explanation_names_what_fired_and_what_stopped_the_others() -> None:
    policy = compiled(
        'decision := "a" if {\n\tinput.x == 1\n\tinput.y == 2\n}\n\n'
        'decision := "b" if input.z\n\ndefault decision := "c"'
    )
    explained = policy.explain(b'{"x": 1, "y": 3}')
    assert explained["answer"] == "c"
    assert [(entry["row"], entry["default"]) for entry in explained["fired"]] == [(10, True)]
    assert {(entry["row"], entry["text"]) for entry in explained["failed"]} == {(5, "input.y == 2"), (8, "input.z")}


def test_annotations_come_with_their_place() -> None:
    policy = compiled(
        "# METADATA\n# title: At the weekend\n# custom:\n#   reasons:\n#     weekend_closed: Closed.\ndecision := 1"
    )
    [entry] = policy.annotations()
    assert entry["path"] == "data.gateway.authz.decision"
    assert entry["annotations"]["custom"] == {"reasons": {"weekend_closed": "Closed."}}
    assert (entry["file"], entry["row"]) == ("authz.rego", 8)
