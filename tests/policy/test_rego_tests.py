"""The policies' own tests pass in the embedded engine, and in OPA where it is there; each policy has some."""

from __future__ import annotations

import subprocess

import pytest

from gateway.policy.engines.opa_tools import run_tests
from tests.support.paths import POLICIES, ROOT

OPA = ROOT / ".tools" / "opa"
TESTS = sorted((POLICIES / "gateway").glob("*_test.rego"))


def test_every_policy_has_tests_beside_it() -> None:
    policies = {file.stem for file in (POLICIES / "gateway").glob("*.rego")} - {file.stem for file in TESTS}
    assert {file.stem.removesuffix("_test") for file in TESTS} == policies


def test_the_tests_pass_in_the_embedded_engine_and_come_to_every_rule() -> None:
    modules = [(str(file.relative_to(POLICIES)), file.read_text()) for file in sorted(POLICIES.glob("gateway/*.rego"))]
    data = f'{{"gateway": {(POLICIES / "data/gateway/settings.json").read_text()}}}'.encode()
    run = run_tests(modules, data, coverage=True)
    assert [(result.name, result.why) for result in run.results if not result.passed] == []
    assert len(run.results) > len(TESTS)
    assert {result.file for result in run.results} == {str(file.relative_to(POLICIES)) for file in TESTS}
    assert run.coverage is not None
    assert run.coverage["coverage"] >= 95


@pytest.mark.skipif(not OPA.exists(), reason="no OPA in .tools/opa (tests/tools.sh builds it where Go is)")
@pytest.mark.parametrize("command", [("test",), ("check", "--strict"), ("fmt", "--fail", "-l")])
def test_opa_itself_is_content(command: tuple[str, ...]) -> None:
    folders = ["policies/gateway"] if command[0] == "fmt" else ["policies/gateway", "policies/data"]
    done = subprocess.run([str(OPA), *command, *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
