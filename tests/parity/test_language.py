"""The language and the builtins that a policy may use mean the same in the embedded engine and in OPA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.core.ports.pipeline import EngineFailure, PolicyEngine
from gateway.policy.engines.embedded import EmbeddedEngine
from tests.support.opa_world import Opas, bundle, policy, pushed

SOON_S = 5.0


async def outcome(engine: PolicyEngine, document: Mapping[str, Any]) -> object:
    """The answer, or the reason of the failure."""
    try:
        return await engine.evaluate(document)
    except EngineFailure as failure:
        return failure.reason


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
    "decision := 1 if input.n == 3\n\ndecision := 2 if input.n > 1",
    "decision := 1 if { input.n == 4 } else := 2 if { input.n == 3 } else := 3",
    'default decision := "d"\n\ndecision := {"a": input.missing} if input.n',
    "default f(_) := 9\n\nf(1) := 1\n\ndecision := [f(1), f(2)]",
    "f(x) := 1 if x > 1\n\nf(x) := 2 if x > 2\n\ndecision := f(3)",
    's contains x if some x in input.arr\n\ns contains "z"\n\ndecision := s',
    's contains x if { some x in input.arr; x > 10 }\n\ndecision := {"n": count(s), "s": s}',
    "o[k] := v if some k, v in input.o\n\ndecision := o",
    "a.b.c := 1\n\na.b.d := 2\n\ndecision := a",
    'a[x].k := x if some x in {"p", "q"}\n\ndecision := a',
    'decision := true if { every r in input.roles { r.key != "zz" } }',
    "decision := true if { every x in [] { x > 0 } }",
    'decision := x if { {"key": x, "org": "x"} = input.roles[_] }',
    't := input.n\n\ndecision := x if { x := t with input as {"n": 7} }',
    "t := input.nope\n\ndecision := 1 if { not t }",
    "t := false\n\ndecision := [1 | not t]",
    "decision := 1 if { not input.missing == 3 }",
    "decision := 1 if { input.missing != 3 }",
    'decision := {"a": x | some x in input.arr}',
    'decision := true if input.roles[_].key == "b"',
    "import input.o as oo\n\ndecision := oo.a",
    "decision := data.table[input.s]",
    "decision := {k | some k, v in data.table; v > 1}",
]  # fmt: skip


# What another engine, or an allow-list, once read differently.
SUBTLE = [
    'one := input.roles[0]\n\ndecision := "allow" if { {"key": _} = one }',
    "empty contains input.n if false\n\ndecision := [1 | empty]",
    "decision := 1 if (input.missing in input.arr) == false",
    "decision := data.gateway.nothing",
    "decision := data.gateway.authz.parts.of\n\nparts.of.it := 1 if false",
    'decision := [{"b": 1} < {"a": 2}, {1, 2} < {3}, {"a"} < {"a", "b"}, {} < set(), [{1}] < [{2}]]',
    "decision := [9007199254740993 + 1, 0.1 + 0.2, 1e100, 1 / 3, 123456789012345678901234567890 * 10]",
    r'decision := [sprintf("%d %s %v %05.2f %x", [input.n, input.s, input.o, input.f, 255]), upper(input.s)]',
    r'decision := [regex.match(`^\d+\w\s?$`, "12a "), regex.find_n(`(?i)\bw\w+`, input.s, -1)]',
    'decision := [glob.match("*.example", [], "a.b.example"), glob.match("*.example", ["."], "a.b.example")]',
    "decision := 1 if { not count(input.missing) > 0 }",
    'decision := [json.marshal({"b": {2, 1}, "a": 1.50}), yaml.unmarshal("a: [1, 2]"), crypto.sha256("x")]',
    "decision := [strings.replace_n({input.s: input.e}, input.s), time.format(1700000000000000000)]",
    'decision := [semver.compare("1.0.0-1", "1.0.0-alpha"), units.parse("10Mi"), net.cidr_merge(["10.0.0.0/9"])]',
    "decision := [x | some x in {1, 1.0, 1e0}]",
    'decision := object.union_n([{"a": {"b": 1}}, {"a": {"c": 2}}, {"a": 3}])',
    "decision := [1 | some k in input.o; k == k; every x in [] { x }]",
    "decision := x if { some i; x := input.arr[i]; i == 1 }",
    "decision := {v: k | some k, v in input.arr}",
]  # fmt: skip
LONG_AND_MANY = (
    "\n\n".join(f"p{number} := p{number + 1}" for number in range(150)) + "\n\np150 := input.n\n\ndecision := p0"
)


@pytest.mark.parametrize("batch", [0, 1])
async def test_the_language_and_its_builtins_mean_the_same(opas: Opas, tmp_path: Path, batch: int) -> None:
    url = opas.start()
    bodies = [*(f"decision := {text}" for text in EXPRESSIONS), *PROGRAMS, *SUBTLE, LONG_AND_MANY]
    for body in bodies[batch::2]:
        what = bundle(tmp_path / "policies", policy(body), data={"table": {"Grüße, Wörld": 1, "b": 2, "c": 3}})
        async with pushed(url, what) as engine:
            assert await outcome(engine, INPUT) == await outcome(EmbeddedEngine(what, SOON_S), INPUT), body
