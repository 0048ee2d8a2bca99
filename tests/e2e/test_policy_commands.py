"""`gateway policy ...` as a process: every command, on the starter policies and on broken ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_world import gateway
from tests.support.paths import POLICIES

CASE = next(POLICIES.glob("cases/01-*.json"))
WEEKEND = """package gateway.authz

# METADATA
# title: Exports
# custom:
#   reasons:
#     weekend_closed: {what: Nothing is exported at the weekend., fix: Come back on Monday.}
blocks contains "weekend_closed" if {
	exporting
	input.now > 5
}

exporting if input.request.method == "GET"
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    assert gateway("init", folder, "--upstream", "http://127.0.0.1:1").exit_code == 0
    return folder / "policies"


def run(policies: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "policy", *words, "-c", str(policies.parent / "gateway.yaml")]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)


def read(policies: Path, *words: str, code: int = 0) -> Any:
    done = run(policies, *words, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def own(policies: Path, text: str, name: str = "own.rego") -> None:
    (policies / "gateway" / name).write_text(text, encoding="utf-8")


def test_the_starter_policies_are_right_formatted_and_tested_even_strictly(policies: Path) -> None:
    assert read(policies, "check", "--strict") == {"problems": [], "warnings": []}
    assert read(policies, "fmt") == {"changed": [], "failed": {}, "written": False}
    tested = read(policies, "test", "--coverage")
    assert tested["failed"] == {}
    assert tested["coverage"]["coverage"] > 80
    assert all(not name.endswith("_test.rego") for name in tested["coverage"]["files"])


def test_check_shows_the_place_a_caret_and_a_hint(policies: Path) -> None:
    own(policies, 'package gateway.authz\n\nblocks contains "closed" if input.servce.name == "chat"\n')
    done = run(policies, "check")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error gateway/own.rego:3:")
    assert lines[1] == '  3 | blocks contains "closed" if input.servce.name == "chat"'
    caret = lines[2].index("^") - lines[1].index("input")
    assert lines[1][lines[2].index("^") :].startswith(("input.servce", "servce")), (caret, lines)
    assert lines[3].strip() == "fix Did you mean service?"
    assert done.stdout == "policy check: 1 problem, 0 warnings\n"


def test_check_finds_every_problem_of_every_file_at_once(policies: Path) -> None:
    own(policies, "package gateway.authz\n\nx := {\n")
    own(policies, "package gateway.authz\n\ny := )\n", "other.rego")
    files = {problem["file"] for problem in read(policies, "check", code=1)["problems"]}
    assert files == {"gateway/own.rego", "gateway/other.rego"}


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("package acme.lib\n\nused := 1\n\nspare := 2\n", "unused_library_rule"),
        ("package acme.lib\n\nused := size if {\n\tsize := 1\n}\n\nsize := 2\n", "shadowed_name"),
        ("package acme.lib\n\nimport data.gateway.settings\n\nused := 1\n", "rego_compile_error"),
        ("package acme.lib\n\nused := 1 if {\n\tnever := 2\n}\n", "rego_compile_error"),
    ],
)
def test_strict_finds_what_is_merely_untidy(policies: Path, source: str, code: str) -> None:
    own(policies, source, "lib.rego")
    own(policies, 'package gateway.authz\n\nblocks contains "closed" if data.acme.lib.used == 7\n')
    assert read(policies, "check")["problems"] == []
    assert code in {problem["code"] for problem in read(policies, "check", "--strict", code=1)["problems"]}


def test_a_posture_that_nobody_misses_is_a_warning(policies: Path) -> None:
    own(policies, 'package gateway.authz\n\nblocks contains "old" if input.device.posture.encrypted == false\n')
    warnings = read(policies, "check")["warnings"]
    assert [(warning["line"], warning["code"]) for warning in warnings] == [(3, "unreported_posture")]


def test_run_chooses_tests_and_coverage_names_the_lines_that_none_came_to(policies: Path) -> None:
    own(policies, WEEKEND)
    tested = read(policies, "test", "--run", "authz_mfa_test", "--coverage")
    assert tested["passed"]
    assert all("authz_mfa_test" in name for name in tested["passed"])
    assert tested["coverage"]["files"]["gateway/own.rego"]["not_covered"]
    done = run(policies, "test", "--coverage")
    assert "gateway/own.rego" in done.stdout
    assert run(policies, "test", "--run", "(").returncode == 1


def test_eval_answers_about_a_file_a_case_and_stdin(policies: Path, tmp_path: Path) -> None:
    case = json.loads(CASE.read_text(encoding="utf-8"))
    assert read(policies, "eval", str(CASE))["answer"] == case["answer"]
    empty = tmp_path / "input.json"
    empty.write_text("{}", encoding="utf-8")
    assert read(policies, "eval", str(empty))["answer"]["effect"] != "allow"
    done = run(policies, "eval", "-", stdin="{}")
    assert json.loads(done.stdout)["effect"] != "allow"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1e', "[" * 100_000, "\ud800"])
def test_an_input_that_is_none_is_refused(policies: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "input.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    done = run(policies, "eval", str(file))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "error" in done.stderr


def test_eval_and_explain_take_a_recorded_decision_and_say_what_the_record_lacks(policies: Path) -> None:
    record = policies.parent / "state" / "decisions.jsonl"
    record.parent.mkdir(exist_ok=True)

    event = {
        "v": 1, "ts": 1000.0, "decision": "d1", "effect": "deny", "reasons": ["role_missing"], "status": 403,
        "service": "export", "plane": "staff", "method": "GET", "host": "h.example", "path": "/a", "protocol": "h2",
        "client_ip": "192.0.2.7", "subject": "1", "issuer": "https://i.example", "risk": 0, "policy": "x",
    }  # fmt: skip
    record.write_text(json.dumps(event) + "\n", encoding="utf-8")
    answered = read(policies, "eval", "d1")
    assert answered["answer"]["effect"] == "deny"
    assert answered["recorded"]["decision"] == "d1"
    assert "input.identity (in part)" in answered["missing"]
    done = run(policies, "explain", "d1")
    assert done.returncode == 0
    assert "the record lacks what the policies read" in done.stderr
    assert run(policies, "eval", "nobody").returncode == 1


def test_explain_says_which_rules_hold_and_what_stopped_the_others(policies: Path, tmp_path: Path) -> None:
    own(policies, WEEKEND)
    file = tmp_path / "input.json"
    case = json.loads(CASE.read_text(encoding="utf-8"))
    file.write_text(json.dumps(case), encoding="utf-8")
    done = run(policies, "explain", str(file))
    assert done.returncode == 0, done.stderr
    assert "weekend_closed" in done.stdout.splitlines()[0]
    assert any("blocks" in line and "holds" in line and "own.rego:8" in line for line in done.stdout.splitlines())
    assert "Nothing is exported at the weekend. Come back on Monday." in done.stderr
    case["input"]["now"] = 3
    file.write_text(json.dumps(case), encoding="utf-8")
    stopped = run(policies, "explain", str(file)).stdout.splitlines()
    assert any("does not hold: input.now > 5 is false or undefined" in line for line in stopped)


def test_fmt_lists_what_is_not_formatted_and_writes_it(policies: Path) -> None:
    own(policies, WEEKEND.replace("\texporting\n", "   exporting\n"))
    assert read(policies, "fmt", code=1)["changed"] == ["gateway/own.rego"]
    assert read(policies, "fmt", "--write")["written"] is True
    assert (policies / "gateway" / "own.rego").read_text(encoding="utf-8") == WEEKEND
    own(policies, "package x\n\ny := )\n", "broken.rego")
    assert list(read(policies, "fmt", "--write", code=1)["failed"]) == ["gateway/broken.rego"]


def test_deps_are_what_the_decision_reads(policies: Path) -> None:
    depends = read(policies, "deps")
    assert "input.device.verified" in depends["input"]
    assert ["device", "verified"] in depends["reads"]
    assert "data.gateway.authz.blocks" in depends["rules"]


def test_reasons_are_the_policies_own_and_a_hostile_text_stays_text(policies: Path) -> None:
    own(policies, WEEKEND.replace("Come back on Monday.", "'[bold]Come[/] <b>back</b>'"))
    listed = read(policies, "reasons")
    assert listed["reasons"][0]["fix"] == "[bold]Come[/] <b>back</b>"
    assert listed["rules"][0]["title"] == "Exports"
    assert "[bold]Come[/] <b>back</b>" in run(policies, "reasons").stdout


@pytest.mark.parametrize("command", ["eval", "explain"])
def test_policies_that_do_not_load_answer_nothing(policies: Path, command: str) -> None:
    own(policies, "package gateway.authz\n\nx := {\n")
    done = run(policies, command, str(CASE))
    assert done.returncode == 1
    assert "gateway/own.rego:" in done.stderr
    assert "allow" not in done.stdout


def test_policies_that_contradict_each_other_say_where(policies: Path) -> None:
    rules = "level := 1 if input.now > 1\n\nlevel := 2 if input.now > 2\n\n"
    own(policies, f'package gateway.authz\n\n{rules}blocks contains "x" if level > 5\n')
    done = run(policies, "eval", str(CASE))
    assert done.returncode == 1
    assert "The policies fail: gateway/own.rego:" in done.stderr
