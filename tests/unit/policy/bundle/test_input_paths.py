"""What a bundle can read, and that nothing else changes an answer."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.policy.bundle import input_paths as reads
from gateway.policy.bundle.loader import load
from gateway.policy.engines import embedded as rego
from gateway.policy.engines.embedded import EmbeddedEngine
from tests.support.paths import ROOT


def found(*bodies: str) -> set[tuple[str, ...]]:
    source = "package a\n\n" + "\n".join(bodies) + "\n"
    return set(reads.paths([rego.syntax(("a.rego", source))]))


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ("x if input.a.b == 1", {("a", "b")}),
        ('x if input["a"].b == 1', {("a", "b")}),
        ("x if input.a[_].b == 1", {("a",)}),
        ("x if { some k, v in input.a.b; k == v }", {("a", "b")}),
        ("x if { some k in data.names; input.a[k].b }", {("a",)}),
        ("x if input.a[input.b.c] == 1", {("a",), ("b", "c")}),
        ('x if input["a\\u0062"].c == 1', {("ab", "c")}),
        ("x if input[`a`].c == 1", {()}),
        ("x if { some k in data.names; input[k] == 1 }", {()}),
        ("x if { y := input; y.a == 1 }", {()}),
        ("x if count(input.a) > 0", {("a",)}),
        ("f(v) if v.b\nx if f(input.a)", {("a",)}),
        ("x if f(input)\nf(v) if v.b", {()}),
        ("x if { [1 | input.a.b][0] == input.c }", {("a", "b"), ("c",)}),
        ("x := {input.a: input.b | input.c}", {("a",), ("b",), ("c",)}),
        ("x if not input.a.b", {("a", "b")}),
        ("x if every v in input.a { v == input.b }", {("a",), ("b",)}),
        ("default x := 1\nx := 2 if input.a else := input.b if input.c", {("a",), ("b",), ("c",)}),
        ("x if { input.a.b; input.a }", {("a",)}),
        ('y if input.a\nx if y with input as {"a": 1}', {()}),
        ("x if data.b.c == 1", set()),
    ],
)
def test_every_way_to_read_the_input_is_seen(body: str, paths: set[tuple[str, ...]]) -> None:
    assert found(body) == paths


def test_an_import_is_read_whole() -> None:
    assert found("import input.identity as who", "x if who.sub") == {("identity",)}
    assert found("import input as everything", "x if everything.a.b") == {()}


def test_missing_and_null_and_empty_are_three_keys() -> None:
    keys = {reads.key_of(document, [("a", "b")]) for document in ({}, {"a": {}}, {"a": {"b": None}}, {"a": {"b": []}})}
    assert len(keys) == 3


def parts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield (*path, name)
            yield from parts(member, (*path, name))


def changed(document: Any, path: tuple[str, ...]) -> Any:
    other = copy.deepcopy(document)
    inner = other
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = {"something": ["else", 42]}
    return other


async def test_what_is_not_read_changes_no_answer() -> None:
    tried = 0
    for file in sorted((ROOT / "policies/cases").glob("*.json"))[:40]:
        case = json.loads(file.read_text(encoding="utf-8"))
        bundle = load(ROOT / "policies", case["services"])
        engine = EmbeddedEngine(bundle, deadline_s=5)
        answer = await engine.evaluate(case["input"])
        for path in parts(case["input"]):
            other = changed(case["input"], path)
            if reads.key_of(other, bundle.reads) == reads.key_of(case["input"], bundle.reads):
                assert await engine.evaluate(other) == answer, (file.name, path)
                tried += 1
    assert tried > 500
