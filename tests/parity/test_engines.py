"""The embedded engine and a real OPA server give the same answer, pushed or with OPA's own bundle."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config import SecretText
from gateway.core.decision import Decision
from gateway.core.ports import EngineFailure, PolicyEngine
from gateway.core.reasons import Refusal
from gateway.policy.bundle import Bundle, load
from gateway.policy.engine import Decider
from gateway.policy.opa import OpaEngine
from gateway.policy.portable import BUILTINS
from gateway.policy.rego import EmbeddedEngine

from .conftest import StartOpa, free_port

POLICIES = Path(__file__).parents[2] / "policies"
CASES = [json.loads(file.read_text()) for file in sorted((POLICIES / "cases").glob("*.json"))]
ALLOW = '{"effect": "allow", "reasons": ["policy_ok"]}'
SOON_S = 5.0


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    return {**below, **{k: overlay(below[k], v) if isinstance(v, dict) else v for k, v in above.items()}}


def bundle(folder: Path, modules: Mapping[str, str], services: Mapping[str, Any] = {}, data: Any = None) -> Bundle:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    for name, source in modules.items():
        (folder / name).write_text(source)
    if data is not None:
        (folder / "data/data.json").write_text(json.dumps(data))
    return load(folder, services)


def policy(body: str) -> dict[str, str]:
    return {"authz.rego": f"package gateway.authz\n\n{body}\n"}


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


@asynccontextmanager
async def pushed(url: str, what: Bundle) -> AsyncIterator[OpaEngine]:
    engine = OpaEngine(what, url)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


async def outcome(engine: PolicyEngine, document: Mapping[str, Any]) -> object:
    """The answer, or the reason of the failure."""
    try:
        return await engine.evaluate(document)
    except EngineFailure as failure:
        return failure.reason


async def test_every_case_is_answered_alike_when_the_bundle_is_pushed(start_opa: StartOpa, tmp_path: Path) -> None:
    url = start_opa()
    for cases in groups():
        what = group_bundle(tmp_path / "policies", cases)
        embedded = EmbeddedEngine(what, SOON_S)
        async with pushed(url, what) as engine:
            assert engine.version == what.version
            for case in cases:
                assert await engine.evaluate(case["input"]) == case["answer"], case["name"]
                assert await embedded.evaluate(case["input"]) == case["answer"], case["name"]


async def test_every_case_is_answered_alike_when_opa_serves_its_own_bundle(start_opa: StartOpa, tmp_path: Path) -> None:
    for number, cases in enumerate(groups()):
        what = group_bundle(tmp_path / "policies", cases)
        what.export(tmp_path / f"bundle{number}")
        engine = OpaEngine(what, start_opa("--bundle", str(tmp_path / f"bundle{number}")), push=False)
        await engine.start()
        try:
            for case in cases:
                assert await engine.evaluate(case["input"]) == case["answer"], case["name"]
            assert engine.version == what.version
        finally:
            await engine.close()


INPUT = {
    "n": 3, "f": 2.5, "neg": -7.5, "s": "Grüße, Wörld", "arr": [3, 1, 2], "nul": None, "e": "", "ip": "10.1.2.3",
    "o": {"a": {"b": 1}, "c": [1, {"d": 2}]}, "roles": [{"key": "a", "org": "x"}, {"key": "b", "org": ""}],
    "now": 1764000000.5, "dt": "2025-11-24T16:00:00Z",
}  # fmt: skip
EXPRESSIONS = r"""
abs(input.neg)
array.concat(input.arr, [9])
array.reverse(input.arr)
array.slice(input.arr, -1, 2)
base64.decode("YWJj")
base64.decode("!!")
base64.encode(input.s)
base64.is_valid("YQ=")
base64url.decode("YWJj")
base64url.encode(input.s)
base64url.encode_no_pad(input.s)
bits.and(5, 3) + bits.or(5, 3) + bits.xor(5, 3)
[ceil(input.f), floor(input.neg), round(2.5), round(-2.5), round(0.5)]
concat(",", {"b", "a"})
concat(",", input.arr)
[contains(input.s, "ß"), startswith(input.s, "Gr"), endswith(input.s, "ld")]
[count(input.s), count(input.o), count(input.arr)]
count(input.nul)
format_int(255, 16)
format_int(-255, 2)
graph.reachable({"a": ["b"], "b": ["c"], "c": []}, ["a"])
hex.decode(hex.encode("abc"))
[indexof("äöü", "ü"), indexof("a", "b")]
indexof_n("ababa", "a")
intersection({{1, 2}, {2, 3}})
[is_array(input.arr), is_boolean(true), is_null(input.nul), is_number("1"), is_object(input.o), is_string(input.s)]
is_set({1})
json.filter(input.o, ["a/b"])
json.remove(input.o, ["a/b"])
json.is_valid("{\"a\":1}")
json.unmarshal("{\"a\":[1,null]}")
json.unmarshal("{")
lower("ÄB Ñ")
[max(input.arr), min({"b", "a"}), sum(input.arr), product(input.arr)]
max([])
[net.cidr_contains("10.0.0.0/8", input.ip), net.cidr_contains("2001:db8::/32", "2001:db8::1")]
net.cidr_contains("10.0.0.0/8", "10.2.0.0/16")
net.cidr_contains("10.0.0.0/8", "bad")
net.cidr_is_valid("10.0.0.0/33")
[numbers.range(1, 4), numbers.range(4, 1)]
object.filter(input.o, ["a"])
[object.get(input.o, "zz", "d"), object.get(input.o, ["a", "b"], 0), object.get(input.o, ["a", "x"], 0)]
object.get(input.nul, "a", 1)
object.keys(input.o)
object.remove(input.o, ["a"])
object.subset(input.o, {"a": {"b": 1}})
object.union(input.o, {"a": {"z": 1}})
object.union_n([{"a": 1}, {"a": 2}])
regex.match("^W.*d$", "World")
regex.match(`^[a-z]{2,3}\.(?:de|at)$`, "abc.at")
regex.match("^[^,]+, W", input.s)
replace("aaa", "a", "b")
[semver.compare("1.2.3", "1.10.0"), semver.compare("1.0.0-alpha", "1.0.0"), semver.is_valid("1.2")]
[sort({3, 1, 2}), sort(["b", 1, null, true, {"a": 1}, [1]])]
[split("a,b,,c", ","), split("aäb", "ä")]
[strings.any_prefix_match(input.s, ["x", "Gr"]), strings.any_suffix_match(["a"], ["x", "a"])]
[strings.count("cheese", "e"), strings.reverse("äbc")]
[substring("äöü", 1, 1), substring(input.s, 2, -1), substring("abc", 5, 1)]
substring(input.s, -1, 2)
[time.clock(1700000000000000000), time.date(1700000000000000000)]
[time.weekday(input.now * 1000000000), time.weekday([1700000000000000000, "Asia/Tokyo"])]
time.date([1700000000000000000, "Nowhere/None"])
time.diff(1700000000000000000, 1600000000000000000)
[time.parse_duration_ns("1h30m"), time.parse_rfc3339_ns(input.dt)]
[to_number("12.50"), to_number(null), to_number(true)]
to_number("abc")
[trim("xxaxx", "x"), trim_left("xxa", "x"), trim_right("axx", "x"), trim_space("  a\t")]
[trim_prefix("abc", "ab"), trim_suffix("abc", "bc")]
[type_name(input.nul), type_name({1}), type_name(1.5)]
union({{1}, {2}})
units.parse_bytes("10KiB")
[urlquery.decode("a%20b+c"), urlquery.encode("a b&ü")]
[path | walk(input.o, [path, 1])]
[7 % 3, -7 % 3, 7 / 2, input.n * input.f - 1]
7 % 0
1 / 0
[1 < "a", null < false, "B" < "a", [1, 2] < [1, 3]]
[input.n == 3.0, 1 in [1.0], "x" in "xyz", "a" in input.nul]
input.arr[5]
input.missing.x
[x | some x in input.arr; x > 1]
[input.arr[i] | some i in [0, 2, 7]]
{x | x := input.missing}
{r.key: r.org | some r in input.roles}
sort([k | some k, _ in input.o])
startswith(input.nul, "a")
{"a": {3, 1, 2}, "b": {[1], "z", null}}
""".strip().splitlines()
PROGRAMS = [
    'decision := 1 if input.n == 3\n\ndecision := 2 if input.n > 1',
    'decision := 1 if { input.n == 4 } else := 2 if { input.n == 3 } else := 3',
    'default decision := "d"\n\ndecision := {"a": input.missing} if input.n',
    'default f(_) := 9\n\nf(1) := 1\n\ndecision := [f(1), f(2)]',
    'f(x) := 1 if x > 1\n\nf(x) := 2 if x > 2\n\ndecision := f(3)',
    'f(x) := 1 if x > 100\n\ndecision := {"a": 1} if not f(3)',
    's contains x if some x in input.arr\n\ns contains "z"\n\ndecision := s',
    's contains x if { some x in input.arr; x > 10 }\n\ndecision := {"n": count(s), "s": s}',
    'o[k] := v if some k, v in input.o\n\ndecision := o',
    'a.b.c := 1\n\na.b.d := 2\n\ndecision := a',
    'a[x].k := x if some x in {"p", "q"}\n\ndecision := a',
    'decision := true if { every r in input.roles { r.key != "zz" } }',
    'decision := true if { every x in [] { x > 0 } }',
    'decision := x if { {"key": x, "org": "x"} = input.roles[_] }',
    't := input.n\n\ndecision := x if { x := t with input as {"n": 7} }',
    't := input.nope\n\ndecision := 1 if { not t }',
    't := false\n\ndecision := [1 | not t]',
    'decision := 1 if { not startswith(input.nul, "a") }',
    'decision := 1 if { not count(input.nul) > 0 }',
    'decision := 1 if { not input.s + 1 }',
    'decision := 1 if { not input.missing == 3 }',
    'decision := 1 if { input.missing != 3 }',
    'decision := {"a": x | some x in input.arr}',
    'decision := true if input.roles[_].key == "b"',
    'import input.o as oo\n\ndecision := oo.a',
    'decision := data.table[input.s]',
    'decision := {k | some k, v in data.table; v > 1}',
]  # fmt: skip


@pytest.mark.parametrize("batch", [0, 1])
async def test_the_language_and_its_builtins_mean_the_same(start_opa: StartOpa, tmp_path: Path, batch: int) -> None:
    url = start_opa()
    bodies = [f"decision := {text}" for text in EXPRESSIONS] + PROGRAMS
    for body in bodies[batch::2]:
        what = bundle(tmp_path / "policies", policy(body), data={"table": {"Grüße, Wörld": 1, "b": 2, "c": 3}})
        async with pushed(url, what) as engine:
            assert await outcome(engine, INPUT) == await outcome(EmbeddedEngine(what, SOON_S), INPUT), body


def test_every_builtin_that_a_policy_may_call_is_compared() -> None:
    text = "\n".join(EXPRESSIONS)
    assert [name for name in sorted(BUILTINS) if f"{name}(" not in text] == []


async def test_files_and_packages_that_use_each_other_are_pushed_whole(start_opa: StartOpa, tmp_path: Path) -> None:
    first = {
        "a.rego": f"package gateway.authz\n\nimport data.lib.x as l\n\ndecision := {ALLOW} if l.f(b)\n\nc := 2\n",
        "b.rego": "package gateway.authz\n\nb := c\n",
        "lib.rego": 'package lib["x"]\n\nf(v) if v == 2\n',
    }
    second = policy('decision := {"effect": "deny", "reasons": ["default_deny"]}')
    url = start_opa()
    one, two = bundle(tmp_path / "one", first), bundle(tmp_path / "two", second, data={"left": 1})
    for what, effect in ((one, "allow"), (two, "deny"), (one, "allow"), (one, "allow")):
        async with pushed(url, what) as engine:
            found = await Decider(engine, SOON_S).decide({})
            assert isinstance(found, Decision)
            assert found.effect == effect
            assert ("left" in httpx.get(f"{url}/v1/data", trust_env=False).json()["result"]) == (what is two)


async def test_a_server_that_was_started_anew_denies_until_it_has_the_bundle_again(
    start_opa: StartOpa, tmp_path: Path
) -> None:
    port = free_port()
    url = start_opa(port=port)
    async with pushed(url, bundle(tmp_path / "policies", policy(f"decision := {ALLOW}"))) as engine:
        decider = Decider(engine, SOON_S)
        assert isinstance(await decider.decide({}), Decision)
        start_opa.running[0].kill()  # type: ignore[attr-defined]
        start_opa.running[0].wait()  # type: ignore[attr-defined]
        assert await decider.decide({}) == Refusal("policy_unavailable", "ClientConnectorError")
        start_opa(port=port)
        assert await decider.decide({}) == Refusal("policy_unavailable", "the OPA server has no bundle")
        deadline = time.monotonic() + 5
        while not isinstance(found := await decider.decide({}), Decision) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert isinstance(found, Decision)


async def test_half_of_a_bundle_decides_nothing(start_opa: StartOpa, tmp_path: Path) -> None:
    url = start_opa()
    async with pushed(url, bundle(tmp_path / "policies", policy(f"decision := {ALLOW}"))) as engine:
        httpx.put(f"{url}/v1/data/gateway_bundle", json={"version": None}, trust_env=False).raise_for_status()
        assert await Decider(engine, 0.1).decide({}) == Refusal("policy_timeout")


async def test_the_token_is_shown_to_the_server_and_a_wrong_one_is_refused(start_opa: StartOpa, tmp_path: Path) -> None:
    guard = "package system.authz\n\ndefault allow := false\n\n"
    guard += 'allow if input.identity == "canary-7"\n\nallow if input.path == ["health"]\n'
    what = bundle(tmp_path / "policies", policy(f"decision := {ALLOW}"))
    what.export(tmp_path / "own")
    (tmp_path / "own/guard.rego").write_text(guard)
    url = start_opa("--authentication=token", "--authorization=basic", "--bundle", str(tmp_path / "own"))
    for token, reason in ((SecretText("canary-7"), None), (SecretText("canary-8"), "policy_unavailable")):
        engine = OpaEngine(what, url, push=False, token=token)
        await engine.start()
        found = await Decider(engine, SOON_S).decide({})
        await engine.close()
        assert (found.reason if isinstance(found, Refusal) else None) == reason
        assert "canary" not in repr(found) + repr(engine) + repr(vars(engine))
