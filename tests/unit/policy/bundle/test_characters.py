"""Characters by which a policy file reads as something else than it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.policy.bundle.loader import examine
from gateway.policy.engines.compiled_policy import CompiledPolicy
from gateway.policy.engines.opa_tools import run_tests

POLICY = 'package gateway.authz\n\ndecision := {{"effect": "deny", "reasons": ["default_deny"]}}\n\n# {text}\n'
SEPARATORS = ["\u2028", "\u2029", "\x85", "\f", "\v", "\r", "\x1c", "\x1e"]
CONTROLS = ["\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069"]


def write(folder: Path, text: str) -> None:
    (folder / "authz.rego").write_bytes(POLICY.format(text=text).encode())


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_text_after_another_line_separator_in_a_comment_is_never_policy(tmp_path: Path, separator: str) -> None:
    write(tmp_path, f'harmless{separator}decision := {{"effect": "allow", "reasons": ["policy_ok"]}}')
    bundle, found = examine(tmp_path, {})
    assert bundle is None
    assert [(error.file, error.line, error.column, error.code) for error in found] == [
        ("authz.rego", 5, 11, "misleading_character")
    ]
    assert f"\\u{ord(separator):04x}" in found[0].fix


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_opa_itself_reads_on_in_the_comment(separator: str) -> None:
    source = POLICY.format(text=f"harmless{separator}decision := 1")
    policy = CompiledPolicy.load([("authz.rego", source)], entry="data.gateway.authz.decision")
    assert policy.evaluate(b"{}", 1.0) == {"effect": "deny", "reasons": ["default_deny"]}


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
@pytest.mark.parametrize("place", ["# {}", 'x := "{}"'])
def test_bidirectional_controls_are_refused_wherever_they_stand(tmp_path: Path, control: str, place: str) -> None:
    write(tmp_path, "\n" + place.format(control))
    _, found = examine(tmp_path, {})
    assert [(error.line, error.code) for error in found if error.code == "misleading_character"] == [
        (6, "misleading_character")
    ]


def test_windows_line_ends_tabs_and_names_of_any_script_may_stand(tmp_path: Path) -> None:
    write(tmp_path, "Größe, 部署, עברית\r\n\t# more")
    bundle, found = examine(tmp_path, {})
    assert bundle is not None, found


def test_a_string_says_them_by_an_escape() -> None:
    module = 'package a_test\n\ntest_escape if count("\\u2028\\u202e") == 2\n'
    assert [result.passed for result in run_tests([("a_test.rego", module)]).results] == [True]
