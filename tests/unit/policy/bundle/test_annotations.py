"""Metadata annotations: the texts of the policies' own reason codes, and every form that is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.core.reasons import Reason
from gateway.policy.bundle.loader import examine, load
from gateway.policy.decider import Decider
from gateway.policy.engines.embedded import EmbeddedEngine
from gateway.policy.engines.server import OpaEngine

POLICY = """package gateway.authz

# METADATA
# title: Exports
# description: Nobody exports at the weekend.
# custom:
#   reasons:
{reasons}
blocks contains "weekend_closed" if input.now > 1

decision := {{"effect": "deny", "reasons": [code | some code in blocks]}}
"""
TEXT = '{what: "Nothing is exported at the weekend.", fix: "Come back on Monday."}'


def write(folder: Path, *reasons: str) -> Path:
    lines = "\n".join(f"#     {line}" for line in reasons)
    (folder / "authz.rego").write_text(POLICY.format(reasons=lines), encoding="utf-8")
    return folder


def problems(folder: Path, *reasons: str) -> list[str]:
    bundle, found = examine(write(folder, *reasons), {}, strict=True)
    assert (bundle is None) == bool(found)
    assert all(error.file == "authz.rego" and error.line == 9 and error.fix for error in found)
    return [error.message for error in found]


@pytest.mark.parametrize("engine", ["embedded", "server"])
async def test_both_engines_give_the_texts_of_the_policies_own_codes(tmp_path: Path, engine: str) -> None:
    bundle = load(write(tmp_path, f"weekend_closed: {TEXT}"), {}, strict=True)
    text = Reason("weekend_closed", 403, "Nothing is exported at the weekend.", "Come back on Monday.")
    decides = EmbeddedEngine(bundle) if engine == "embedded" else OpaEngine(bundle, "http://127.0.0.1:9")
    assert Decider(decides).reason_texts == {"weekend_closed": text}


def test_an_opa_with_a_bundle_of_its_own_tells_no_texts(tmp_path: Path) -> None:
    bundle = load(write(tmp_path, f"weekend_closed: {TEXT}"), {})
    texts: Mapping[str, Reason] = OpaEngine(bundle, "http://127.0.0.1:9", push=False).reason_texts
    assert texts == {}


def test_a_text_without_a_fix_is_enough(tmp_path: Path) -> None:
    bundle = load(write(tmp_path, 'weekend_closed: {what: "Closed."}'), {})
    assert bundle.reasons["weekend_closed"] == Reason("weekend_closed", 403, "Closed.", "")


@pytest.mark.parametrize(
    ("reasons", "word"),
    [
        (["- one"], "no mapping"),
        ([f"Weekend: {TEXT}"], "no reason code"),
        ([f"role_missing: {TEXT}"], "the gateway's own"),
        (["weekend_closed: closed"], "out of shape"),
        (["weekend_closed: {}"], "out of shape"),
        (['weekend_closed: {what: ""}'], "out of shape"),
        (["weekend_closed: {what: 1}"], "out of shape"),
        (['weekend_closed: {what: "Closed.", html: "x"}'], "out of shape"),
        ([f'weekend_closed: {{what: "{"x" * 301}"}}'], "out of shape"),
        (['weekend_closed: {what: "Closed.", fix: "' + "x" * 301 + '"}'], "the fix of"),
        (['weekend_closed: {what: "one\\ntwo"}'], "out of shape"),
        (['weekend_closed: {what: "\\u202Eesrever"}'], "out of shape"),
        (['weekend_closed: {what: "a\\0b"}'], "out of shape"),
    ],
)
def test_a_text_out_of_shape_is_refused_at_its_rule(tmp_path: Path, reasons: list[str], word: str) -> None:
    found = problems(tmp_path, *reasons)
    assert len(found) == 1
    assert word in found[0]


def test_a_code_is_described_once(tmp_path: Path) -> None:
    write(tmp_path, f"weekend_closed: {TEXT}")
    more = "package lib\n\n# METADATA\n# custom:\n#   reasons:\n#     weekend_closed: {what: Shut.}\nx := 1\n"
    (tmp_path / "lib.rego").write_text(more, encoding="utf-8")
    _, found = examine(tmp_path, {})
    assert ["described twice" in error.message for error in found] == [True]
