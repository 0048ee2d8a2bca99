"""The policies' own tests pass in the embedded engine, and in OPA where it is there; each policy has some."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import regorus

from tests.support.paths import POLICIES, ROOT

OPA = ROOT / ".tools" / "opa"
TESTS = sorted((POLICIES / "gateway").glob("*_test.rego"))


def test_every_policy_has_tests_beside_it() -> None:
    policies = {file.stem for file in (POLICIES / "gateway").glob("*.rego")} - {file.stem for file in TESTS}
    assert {file.stem.removesuffix("_test") for file in TESTS} == policies


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_the_tests_pass_in_the_embedded_engine(file: Path) -> None:
    engine = regorus.Engine()
    for policy in sorted((POLICIES / "gateway").glob("*.rego")):
        engine.add_policy_from_file(str(policy))
    engine.add_data_json(f'{{"gateway": {(POLICIES / "data/gateway/settings.json").read_text()}}}')
    source = file.read_text()
    package = re.search(r"^package (\S+)$", source, re.MULTILINE)
    assert package is not None
    names = re.findall(r"^(test_\w+)", source, re.MULTILINE)
    assert names
    assert {name: engine.eval_rule(f"data.{package[1]}.{name}") for name in names} == dict.fromkeys(names, True)


@pytest.mark.skipif(not OPA.exists(), reason="no OPA in .tools/opa (tests/tools.sh builds it where Go is)")
@pytest.mark.parametrize("command", [("test",), ("check", "--strict"), ("fmt", "--fail", "-l")])
def test_opa_itself_is_content(command: tuple[str, ...]) -> None:
    folders = ["policies/gateway"] if command[0] == "fmt" else ["policies/gateway", "policies/data"]
    done = subprocess.run([str(OPA), *command, *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
