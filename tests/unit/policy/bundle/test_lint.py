"""A bundle in which a wrong name says nothing is refused, with the place and what was probably meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gateway.policy.bundle import lint
from gateway.policy.bundle.loader import examine
from tests.support.paths import POLICIES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "policies"
    shutil.copytree(POLICIES, target, ignore=shutil.ignore_patterns("cases"))
    return target


def found(folder: Path, source: str) -> list[str]:
    (folder / "gateway" / "own.rego").write_text(source, encoding="utf-8")
    _, problems = examine(folder, {}, strict=True)
    return [str(problem) for problem in problems]


def test_the_starter_policies_have_none(folder: Path) -> None:
    assert examine(folder, {}, strict=True)[1] == ()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            'block contains "closed" if input.service.name == "chat"',
            "gateway/own.rego:3: nothing asks for the rule block. Did you mean blocks?",
        ),
        (
            'blocks contains "closed" if input.servce.name == "chat"',
            "gateway/own.rego:3: undefined ref: input.servce.name. Did you mean service?",
        ),
        (
            'blocks contains "closed" if input.service.nam == "chat"',
            "gateway/own.rego:3: undefined ref: input.service.nam. Did you mean name?",
        ),
        (
            'blocks contains "closed" if { device := input.device; device.verfied }',
            "gateway/own.rego:3: undefined ref: device.verfied. Did you mean verified?",
        ),
        (
            'blocks contains "closed" if data.gateway.services[input.service.name].alow.public',
            (
                "gateway/own.rego:3: undefined ref: data.gateway.services[input.service.name].alow.public."
                " Did you mean allow?"
            ),
        ),
        (
            'blocks contains "closed" if data.gateway.settings.mfa.metods',
            "gateway/own.rego:3: undefined ref: data.gateway.settings.mfa.metods. Did you mean methods?",
        ),
        (
            'decision := {"effect": "deny", "reason": ["closed"]} if input.service.name == "chat"',
            "gateway/own.rego:3: the gateway knows no member reason of an answer. Did you mean reasons?",
        ),
        (
            'blocks contains "closed" if input.service.name == 7',
            "gateway/own.rego:3: match error (left  : string; right : number). Correct it.",
        ),
        (
            'blocks contains "closed" if inpt.service.name == "chat"',
            "gateway/own.rego:3: var inpt is unsafe. Did you mean input?",
        ),
        (
            'blocks contains "closed" if input["identity"].rolls == []',
            "gateway/own.rego:3: undefined ref: input.identity.rolls. Did you mean roles?",
        ),
        (
            'blocks contains x if input.service.name == "wiki"',
            "gateway/own.rego:3: var x is unsafe. Correct the name, or write `some` or `:=`.",
        ),
        (
            'blocks contains "closed" if prefx == input.service.name',
            "gateway/own.rego:3: var prefx is unsafe. Correct the name, or write `some` or `:=`.",
        ),
    ],
)
def test_a_wrong_name_is_said(folder: Path, rule: str, said: str) -> None:
    assert found(folder, f"package gateway.authz\n\n{rule}\n") == [said]


def test_a_package_that_nobody_asks_for_is_said_once(folder: Path) -> None:
    source = 'package gateway.authzz\n\nblocks contains "closed" if true\n\nmore if true\n'
    [said] = found(folder, source)
    assert said.startswith(
        "gateway/own.rego:3: nothing asks for the package gateway.authzz. Did you mean gateway.authz?"
    )


@pytest.mark.parametrize(
    "source",
    [
        # helpers of one's own, used
        'package gateway.authz\n\nblocks contains "closed" if closed\n\nclosed if input.service.name == "chat"\n',
        'package gateway.authz\n\nblocks contains "x" if too_late(input.now)\n\ntoo_late(t) if t > 10\n',
        # a library, of which a part is used
        'package gateway.authz\n\nimport data.acme.hours\n\nblocks contains "closed" if hours.closed\n',
        # variables in every position that binds
        'package gateway.authz\n\nblocks contains code if some code, _ in {"a": 1}\n',
        'package gateway.authz\n\nblocks contains code if { some i; code := ["a"][i]; i < 3 }\n',
        'package gateway.authz\n\nblocks contains code if { [code, _] := ["a", 1] }\n',
        'package gateway.authz\n\nblocks contains code if { {"c": code} = {"c": "a"} }\n',
        "package gateway.authz\n\nblocks contains code if { walk(input.grants, [_, code]); is_string(code) }\n",
        'package gateway.authz\n\nblocks contains "x" if every role in input.identity.roles { role.key == "x" }\n',
        'package gateway.authz\n\nblocks contains code if { codes := {c | some c in ["a"]}; some code in codes }\n',
        'package gateway.authz\n\nblocks contains code if { m := {k: v | some k, v in {"a": 1}}; some code, _ in m }\n',
        # what may have any member
        'package gateway.authz\n\nblocks contains "x" if input.request.headers["x-anything"] == "y"\n',
        'package gateway.authz\n\nblocks contains "x" if "y" in input.request.query.anything\n',
        'package gateway.authz\n\nblocks contains "x" if data.other.table[input.service.name].anything\n',
        'package gateway.authz\n\nblocks contains "x" if data.gateway.services.payroll.allow.public\n',
        'package gateway.authz\n\nblocks contains "x" if data.gateway.settings.own.limit > 3\n',
        'package gateway.authz\n\nobligations contains {"kind": "no_store"} if input.risk.terms[_].name == "x"\n',
    ],
)  # fmt: skip
def test_what_is_right_is_left_alone(folder: Path, source: str) -> None:
    settings = json.loads((folder / "data/gateway/settings.json").read_text())
    settings["settings"]["own"] = {"limit": 5}
    (folder / "data/gateway/settings.json").write_text(json.dumps(settings))
    (folder / "acme").mkdir()
    (folder / "acme" / "hours.rego").write_text("package acme.hours\n\nclosed if input.now > 5\n\nspare if true\n")
    if "acme" not in source:
        source += '\nblocks contains "never" if data.acme.hours.closed\n'
    assert found(folder, source) == []


def doubts(folder: Path, source: str) -> list[tuple[int, str]]:
    (folder / "gateway" / "own.rego").write_text(f"package gateway.authz\n\n{source}", encoding="utf-8")
    bundle, problems = examine(folder, {}, strict=True)
    assert bundle is not None, problems
    return [(error.line, error.message) for error in lint.warnings(bundle.policy, bundle.data)]


@pytest.mark.parametrize(
    "source",
    [
        'blocks contains "old" if input.device.posture.encrypted == false\n',
        'blocks contains "old" if input.device.posture.encrypted != true\n',
        'blocks contains "old" if { found := input.device.posture.encrypted; found == false }\n',
        'challenges contains "old" if input.device.posture["encrypted"] == false\n',
        'blocks contains "old" if not startswith(lower(input.device.posture.encrypted), "yes")\n',
        'blocks contains "old" if old\n\nold if input.device.posture.encrypted == false\n',
        'blocks contains "old" if not new\n\nnew if not input.device.posture.encrypted == false\n',
    ],
)
def test_a_posture_member_that_no_device_must_report_and_nobody_misses_is_doubtful(folder: Path, source: str) -> None:
    doubted = doubts(folder, source)
    assert [message for _, message in doubted] == ["a device that does not report posture.encrypted is not objected to"]
    assert doubted[0][0] > 2


@pytest.mark.parametrize(
    "source",
    [
        'blocks contains "old" if not input.device.posture.encrypted\n',
        'blocks contains "old" if not safe\n\nsafe if input.device.posture.encrypted == true\n',
        'blocks contains "old" if object.get(input.device.posture, "encrypted", false) == false\n',
        'blocks contains "a" if input.device.posture.os == "9"\n\nblocks contains "b" if not input.device.posture.os\n',
        'obligations contains {"kind": "no_store"} if input.device.posture.encrypted == false\n',
    ],
)
def test_a_posture_member_that_is_missed_is_in_order(folder: Path, source: str) -> None:
    assert doubts(folder, source) == []
