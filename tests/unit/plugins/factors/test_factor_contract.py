"""Every factor plugin, and the example of docs/factors.md, is held to the one contract."""

from __future__ import annotations

import ast
import inspect
import json
import re
from typing import Any

import jsonschema
import pyotp
import pytest

from gateway.core.factors import Factor, FactorOwner, FactorProven, FactorStep
from gateway.core.reasons import Refusal
from plugins.factors import ALL, builtin
from tests.support.paths import ROOT
from tests.support.webauthn_authenticator import Authenticator

PAGE = (ROOT / "docs" / "factors.md").read_text(encoding="utf-8")
ADA = FactorOwner("https://id.example.com", "ada", "ada@example.com")
NOW = 1_800_000_000.0


def example() -> type[Factor]:
    [source] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "example.py", "exec"), scope)  # noqa: S102 - our own page
    return scope["Spoken"]  # type: ignore[no-any-return]


class Person:
    """Somebody who answers rightly, whatever the kind."""

    def __init__(self) -> None:
        self.key = Authenticator()
        self.secret, self.codes = "", []

    def enrol(self, kind: str, step: FactorStep) -> dict[str, Any]:
        self.secret, self.codes = step.show.get("secret", ""), list(step.show.get("codes", ()))
        answers = {"webauthn": lambda: self.key.create(step.show), "recovery": lambda: {"saved": True}}
        return answers.get(kind, lambda: self.say(kind, NOW))()

    def prove(self, kind: str, step: FactorStep) -> dict[str, Any]:
        answers = {"webauthn": lambda: self.key.get(step.show), "recovery": lambda: {"code": self.codes.pop()}}
        return answers.get(kind, lambda: self.say(kind, NOW + 30))()

    def say(self, kind: str, at: float) -> dict[str, Any]:
        return {"code": pyotp.TOTP(self.secret).at(int(at))} if kind == "totp" else {"word": self.secret}


@pytest.fixture(params=[*ALL, example()], ids=lambda plugin: plugin.kind)
def plugin(request: pytest.FixtureRequest) -> Factor:
    return request.param(**request.param.schema["examples"][0])  # type: ignore[no-any-return]


def test_a_factor_says_what_it_is(plugin: Factor) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", plugin.kind)
    assert plugin.amr
    assert plugin.enrol_tries >= 1
    assert plugin.enrol_amr <= plugin.amr
    assert type(plugin).__doc__


def test_the_schema_is_that_of_the_constructor(plugin: Factor) -> None:
    schema = plugin.schema
    jsonschema.Draft202012Validator.check_schema(dict(schema))
    assert schema["additionalProperties"] is False
    assert list(inspect.signature(type(plugin)).parameters) == list(schema["properties"])
    for settings in schema["examples"]:
        jsonschema.validate(settings, dict(schema))
        type(plugin)(**settings)


def test_a_life_of_a_factor_passes_through_json(plugin: Factor) -> None:
    person = Person()
    step = plugin.enrol_begin(ADA, [], NOW)
    pending = json.loads(json.dumps(step.pending))
    json.dumps(step.show)
    state = plugin.enrol_finish(pending, [], person.enrol(plugin.kind, step), NOW)
    assert not isinstance(state, Refusal)
    states = [json.loads(json.dumps(state))]
    json.dumps(plugin.describe(states[0]))
    before = json.dumps(states)
    step = plugin.challenge_begin(states, NOW + 30)
    pending = json.loads(json.dumps(step.pending))
    found = plugin.challenge_finish(pending, states, person.prove(plugin.kind, step), NOW + 30)
    assert isinstance(found, FactorProven)
    assert (found.index, set(found.amr) <= plugin.amr) == (0, True)
    assert json.dumps(states) == before
    json.dumps(found.state)


@pytest.mark.parametrize(
    "answer", [{}, {"code": None}, {"code": "000000"}, {"id": []}, {"saved": 1}, {"word": "wrong"}]
)
def test_a_wrong_answer_is_a_value(plugin: Factor, answer: dict[str, Any]) -> None:
    person = Person()
    step = plugin.enrol_begin(ADA, [], NOW)
    assert plugin.enrol_finish(step.pending, [], answer, NOW).reason == "factor_invalid"  # type: ignore[union-attr]
    state = plugin.enrol_finish(step.pending, [], person.enrol(plugin.kind, step), NOW)
    assert not isinstance(state, Refusal)
    step = plugin.challenge_begin([state], NOW)
    found = plugin.challenge_finish(step.pending, [state], answer, NOW)
    assert isinstance(found, Refusal)
    assert found.reason == "factor_invalid"


def test_nothing_secret_is_in_a_repr(plugin: Factor) -> None:
    person = Person()
    step = plugin.enrol_begin(ADA, [], NOW)
    assert repr(step) == "FactorStep()"
    state = plugin.enrol_finish(step.pending, [], person.enrol(plugin.kind, step), NOW)
    assert not isinstance(state, Refusal)
    step = plugin.challenge_begin([state], NOW + 30)
    found = plugin.challenge_finish(step.pending, [state], person.prove(plugin.kind, step), NOW + 30)
    assert isinstance(found, FactorProven)
    assert repr(found) == f"FactorProven(index=0, amr={found.amr!r})"


def test_a_plugin_sees_the_core_alone() -> None:
    for path in (ROOT / "plugins" / "factors").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gateway"):
                assert (node.module or "").startswith("gateway.core"), path


def test_there_is_one_of_each_and_the_page_has_them_all() -> None:
    found = builtin("Example", "example.com", ["https://gw.example.com"])
    assert list(found) == [factor.kind for factor in ALL]
    assert all(f"| `{kind}` |" in PAGE for kind in found)


def test_an_owner_is_one_person_of_one_issuer() -> None:
    handles = {FactorOwner(*names).handle for names in (("a", "b"), ("a|1", "b"), ("a", "1|b"), ("ab", ""), ("", "ab"))}
    assert len(handles) == 5
    assert FactorOwner("a", "b", "x").handle == FactorOwner("a", "b", "y").handle
    assert len(FactorOwner("a", "\ud800").handle) == 32
