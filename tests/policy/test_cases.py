"""The starter policies: whole decisions, as the embedded engine gives them, and the schemas of both ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.core.canonical import admit
from gateway.core.decision import RiskReport, RiskTerm
from gateway.core.ports.pipeline import Network
from gateway.core.reasons import REASONS, Refusal
from gateway.core.request import Peer, RawRequest, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Role, Session
from gateway.policy.bundle.loader import load
from gateway.policy.bundle.model import Bundle
from gateway.policy.contract import build_document, document_json, parse_answer
from gateway.policy.engines.embedded import EmbeddedEngine
from tests.support.paths import POLICIES

CASES = {file.stem: json.loads(file.read_text()) for file in sorted((POLICIES / "cases").glob("*.json"))}
SCHEMAS = {
    name: json.loads((POLICIES / "schema" / f"{name}.schema.json").read_text()) for name in ("input", "decision")
}


def validator(name: str) -> Draft202012Validator:
    Draft202012Validator.check_schema(SCHEMAS[name])
    return Draft202012Validator(SCHEMAS[name])


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {key: overlay(below[key], value) if isinstance(value, dict) else value for key, value in above.items()}
    return {**below, **merged}


def bundle_of(case: dict[str, Any], folder: Path) -> Bundle:
    """The case's own modules, or the starter policies, with the case's services and settings."""
    settings = json.loads((POLICIES / "data/gateway/settings.json").read_text())["settings"]
    data = {"settings": overlay(settings, case.get("settings", {}))}
    (folder / "data/gateway").mkdir(parents=True)
    (folder / "data/gateway/settings.json").write_text(json.dumps(data))
    modules = case.get("modules") or {file.name: file.read_text() for file in (POLICIES / "gateway").glob("*.rego")}
    for name, source in modules.items():
        (folder / name).write_text(source)
    return load(folder, case["services"])


@pytest.mark.parametrize("name", CASES)
async def test_each_case_has_its_answer(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    engine = EmbeddedEngine(bundle_of(case, tmp_path), deadline_s=5)
    assert await engine.evaluate(case["input"]) == case["answer"]


@pytest.mark.parametrize("name", CASES)
def test_each_case_fits_the_schemas_and_the_parser(name: str) -> None:
    case = CASES[name]
    validator("input").validate(case["input"])
    if case["answer"] is None:
        assert parse_answer(case["answer"]) == Refusal("policy_undefined")
    else:
        validator("decision").validate(case["answer"])
        assert not isinstance(parse_answer(case["answer"]), Refusal)


def test_the_cases_show_every_reason_the_starter_policies_give() -> None:
    sources = "".join(file.read_text() for file in (POLICIES / "gateway").glob("*.rego") if "_test" not in file.name)
    given = {code for code in REASONS if f'"{code}"' in sources}
    shown = {code for case in CASES.values() for code in (case["answer"] or {}).get("reasons", ())}
    assert len(given) >= 12
    assert given <= shown


def test_there_is_a_case_for_each_effect_and_none_is_told_twice() -> None:
    assert {(case["answer"] or {}).get("effect") for case in CASES.values()} == {
        "allow",
        "deny",
        "step_up",
        "login",
        None,
    }
    assert len({case["name"] for case in CASES.values()}) == len(CASES) >= 40


def test_the_document_the_gateway_builds_fits_the_schema_in_full_and_without_a_person() -> None:
    peer = Peer("192.0.2.7", 4711, sni="hr.corp.example", ja4="t13d1516h2_8daaf6152771_b186095e22b6")
    raw = RawRequest(b"GET", b"hr.corp.example", b"/a%20b?x=1&x=2", [(b"accept", b"*/*"), (b"cookie", b"s=1")], "2")
    facts = admit(raw, peer)
    assert isinstance(facts, RequestFacts)
    route = Route("hr", "hr.corp.example", department="people", rule="/a b")
    device = Device("5b0c", "q" * 43, "anna", posture={"disk": True})
    person = Identity("https://id", "1", "jwt", "h", 9e9, roles=(Role("staff", "acme"),), amr=("otp",), auth_time=1.0)
    risk = RiskReport(1.5, "low", (RiskTerm("hour", 1.5),))
    network = Network("DE", 64500, vpn=True)
    full = build_document(facts, route, device, person, Session("s", 1.0, ("device",)), risk, network, 1795000600.5)
    bare = build_document(facts, route, None, None, None, RiskReport(), Network(), 1795000600.5)
    for document in (full, bare):
        validator("input").validate(json.loads(document_json(document)))
    assert "cookie" not in full["request"]["headers"]
    assert full["service"]["rule"] == "/a b"
    assert full["now"] == 1795000600.5
