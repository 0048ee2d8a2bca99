"""`gateway policy test`: the policies' own tests, through the engine that decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli_world import gateway

OWN = """package gateway.authz_own_test

import data.gateway.authz

test_nobody_gets_in if authz.decision.effect == "{effect}" with input as {{}}
"""


@pytest.fixture
def policies(site: Path) -> Path:
    return site / "policies"


def run(policies: Path, *words: str) -> tuple[int, str, str]:
    done = gateway("policy", "test", "-c", policies.parent / "gateway.yaml", *words)
    return done.exit_code, done.stdout, done.stderr


def test_the_starter_policies_pass(policies: Path) -> None:
    code, said, _ = run(policies)
    assert (code, said.endswith("passed, 0 failed\n")) == (0, True)
    assert int(said.split()[2]) > 30


@pytest.mark.parametrize(("effect", "code"), [("deny", 0), ("allow", 1)])
def test_a_test_of_ones_own_counts(policies: Path, effect: str, code: int) -> None:
    (policies / "gateway" / "own_test.rego").write_text(OWN.format(effect=effect))
    found, said, why = run(policies)
    assert found == code
    assert ("gateway.authz_own_test.test_nobody_gets_in" in why) == bool(code)
    assert said.endswith(f"passed, {code} failed\n")


def test_a_case_is_a_whole_decision(policies: Path) -> None:
    (policies / "cases").mkdir()
    answer = {"effect": "deny", "reasons": ["default_deny"]}
    (policies / "cases" / "good.json").write_text(json.dumps({"input": {}, "answer": answer}))
    assert run(policies)[0] == 0
    (policies / "cases" / "bad.json").write_text(json.dumps({"input": {}, "answer": {}}))
    (policies / "cases" / "broken.json").write_text("{")
    code, said, _ = run(policies, "--json")
    assert code == 1
    assert sorted(json.loads(said)["failed"]) == ["cases/bad.json", "cases/broken.json"]


def test_policies_that_do_not_load_cannot_be_tested(policies: Path) -> None:
    (policies / "gateway" / "own.rego").write_text('package gateway.authz\n\nblock contains "x" if input.now > 1\n')
    code, _, why = run(policies)
    assert code == 1
    assert "nothing asks for the rule block" in " ".join(why.split())
