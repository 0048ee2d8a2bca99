"""The embedded engine and a real OPA server give the same answer, pushed or with OPA's own bundle."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from gateway.core.decision import Decision
from gateway.core.reasons import Refusal
from gateway.policy.bundle.model import Bundle
from gateway.policy.decider import Decider
from gateway.policy.engines.embedded import EmbeddedEngine
from gateway.policy.engines.server import OpaEngine
from tests.support.opa_world import Opas, bundle, policy, pushed
from tests.support.paths import POLICIES

CASES = [json.loads(file.read_text()) for file in sorted((POLICIES / "cases").glob("*.json"))]
ALLOW = '{"effect": "allow", "reasons": ["policy_ok"]}'
SOON_S = 5.0


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    return {**below, **{k: overlay(below[k], v) if isinstance(v, dict) else v for k, v in above.items()}}


def starter() -> dict[str, str]:
    return {file.name: file.read_text() for file in (POLICIES / "gateway").glob("*.rego")}


def groups() -> list[list[dict[str, Any]]]:
    """Cases that can share a bundle: the same modules, the same settings."""
    found: dict[str, list[dict[str, Any]]] = {}
    for case in CASES:
        found.setdefault(json.dumps([case.get("modules"), case.get("settings")]), []).append(case)
    return list(found.values())


def group_bundle(folder: Path, cases: list[dict[str, Any]]) -> Bundle:
    services: dict[str, Any] = {}
    for case in cases:
        services |= case["services"]
    settings = json.loads((POLICIES / "data/gateway/settings.json").read_text())["settings"]
    data = {"gateway": {"settings": overlay(settings, cases[0].get("settings", {}))}}
    return bundle(folder, cases[0].get("modules") or starter(), services, data)


async def test_every_case_is_answered_alike_when_the_bundle_is_pushed(opas: Opas, tmp_path: Path) -> None:
    url = opas.start()
    for cases in groups():
        what = group_bundle(tmp_path / "policies", cases)
        embedded = EmbeddedEngine(what, SOON_S)
        async with pushed(url, what) as engine:
            assert engine.version == what.version
            for case in cases:
                assert await engine.evaluate(case["input"]) == case["answer"], case["name"]
                assert await embedded.evaluate(case["input"]) == case["answer"], case["name"]


async def test_every_case_is_answered_alike_when_opa_serves_its_own_bundle(opas: Opas, tmp_path: Path) -> None:
    for number, cases in enumerate(groups()):
        what = group_bundle(tmp_path / "policies", cases)
        what.export(tmp_path / f"bundle{number}")
        engine = OpaEngine(what, opas.start("--bundle", str(tmp_path / f"bundle{number}")), push=False)
        await engine.start()
        try:
            for case in cases:
                assert await engine.evaluate(case["input"]) == case["answer"], case["name"]
            assert engine.version == what.version
        finally:
            await engine.close()


async def test_files_and_packages_that_use_each_other_are_pushed_whole(opas: Opas, tmp_path: Path) -> None:
    first = {
        "a.rego": f"package gateway.authz\n\nimport data.lib.x as l\n\ndecision := {ALLOW} if l.f(b)\n\nc := 2\n",
        "b.rego": "package gateway.authz\n\nb := c\n",
        "lib.rego": 'package lib["x"]\n\nf(v) if v == 2\n',
    }
    second = policy('decision := {"effect": "deny", "reasons": ["default_deny"]}')
    url = opas.start()
    one, two = bundle(tmp_path / "one", first), bundle(tmp_path / "two", second, data={"left": 1})
    for what, effect in ((one, "allow"), (two, "deny"), (one, "allow"), (one, "allow")):
        async with pushed(url, what) as engine:
            found = await Decider(engine, SOON_S).decide({})
            assert isinstance(found, Decision)
            assert found.effect == effect
        async with httpx.AsyncClient(trust_env=False) as client:
            kept = (await client.get(f"{url}/v1/data")).json()["result"]
        assert ("left" in kept) == (what is two)


async def test_a_server_that_was_started_anew_denies_until_it_has_the_bundle_again(opas: Opas, tmp_path: Path) -> None:
    url = opas.start()
    async with pushed(url, bundle(tmp_path / "policies", policy(f"decision := {ALLOW}"))) as engine:
        decider = Decider(engine, SOON_S)
        assert isinstance(await decider.decide({}), Decision)
        opas.stop(url)
        assert await decider.decide({}) == Refusal("policy_unavailable", "ClientConnectorError")
        opas.start(port=int(url.rsplit(":", 1)[1]))
        assert await decider.decide({}) == Refusal("policy_unavailable", "the OPA server has no bundle")
        for _ in range(200):
            await asyncio.sleep(0.02)
            if isinstance(found := await decider.decide({}), Decision):
                break
        assert isinstance(found, Decision)


async def test_half_of_a_bundle_decides_nothing(opas: Opas, tmp_path: Path) -> None:
    url = opas.start()
    async with pushed(url, bundle(tmp_path / "policies", policy(f"decision := {ALLOW}"))) as engine:
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.put(f"{url}/v1/data/gateway_bundle", json={"version": None})
        assert await Decider(engine, 0.1).decide({}) == Refusal("policy_timeout")


async def test_the_token_is_shown_to_the_server_and_a_wrong_one_is_refused(opas: Opas, tmp_path: Path) -> None:
    guard = "package system.authz\n\ndefault allow := false\n\n"
    guard += 'allow if input.identity == "canary-7"\n\nallow if input.path == ["health"]\n'
    what = bundle(tmp_path / "policies", policy(f"decision := {ALLOW}"))
    what.export(tmp_path / "own")
    (tmp_path / "own/guard.rego").write_text(guard)
    url = opas.start("--authentication=token", "--authorization=basic", "--bundle", str(tmp_path / "own"))
    for token, reason in (("canary-7", None), ("canary-8", "policy_unavailable")):
        engine = OpaEngine(what, url, push=False, token=token)
        await engine.start()
        found = await Decider(engine, SOON_S).decide({})
        await engine.close()
        assert (found.reason if isinstance(found, Refusal) else None) == reason
        assert "canary" not in repr(found) + repr(engine) + repr(vars(engine))
