"""What is well formed and says nothing, because a name in it is wrong. Pure functions over regorus' syntax trees.

Law: a rule that objects to nothing because of a typo lets everybody in, so such a bundle is refused. Found are rules
and packages that the entry point never asks for, members of the input that the gateway does not send, and variables
that nothing gives a value.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gateway.policy.bundle.portability import BUILTINS, Outline, Problem, find

type Name = tuple[str, ...]
type Place = tuple[str, Problem]

_SCHEMA = Path(__file__).resolve().parents[3] / "policies" / "schema" / "input.schema.json"


def unasked(modules: Sequence[tuple[str, Outline]], entry: Name) -> Iterator[Place]:
    """Rules beside the entry point that nothing asks for, and packages of which nothing is asked for."""
    owners: dict[Name, list[tuple[str, Outline, Mapping[str, Any]]]] = {}
    for file, module in modules:
        for rule in module.tree["rules"]:
            owners.setdefault((*module.package, _name(rule)), []).append((file, module, rule))
    rules = {name: frozenset(one[-1] for one in owners if one[:-1] == name[:-1]) for name in owners}
    asked: set[Name] = set()
    waiting = [name for name in owners if name == entry]
    while waiting:
        name = waiting.pop()
        if name in asked:
            continue
        asked.add(name)
        for _, module, rule in owners[name]:
            for path in _paths(rule, module, rules[name]):
                waiting += [one for one in owners if one[: len(path)] == path or path[: len(one)] == one]
    reached = {name[:-1] for name in asked}
    for name, found in owners.items():
        file, _, rule = found[0]
        line = _line(rule)
        if name in asked:
            continue
        if name[:-1] == entry[:-1]:
            known = sorted(one[-1] for one in asked if one[:-1] == entry[:-1])
            yield file, Problem(line, f"nothing asks for the rule {name[-1]}", _meant(name[-1], known))
        elif name[:-1] not in reached:
            reached.add(name[:-1])
            meant = _meant(".".join(name[:-1]), sorted({".".join(one[:-1]) for one in asked}))
            yield file, Problem(line, f"nothing asks for the package {'.'.join(name[:-1])}", meant)


def unbound(module: Outline, rules: Container[str]) -> Iterator[Problem]:
    """Variables that a rule answers with and that nothing in it gives a value; `rules` are those of the package.

    The engine finds those in a rule's body by itself, but these only when the rule is evaluated.
    """
    known = {"input", "data", *module.aliases, *(name.partition(".")[0] for name in BUILTINS)}
    for rule in module.tree["rules"]:
        if "Spec" not in rule:
            continue
        head = next(iter(rule["Spec"]["head"].values()))
        # A comprehension in the head has a body of its own.
        bodies = [head.get("args"), rule["Spec"]["bodies"], list(find("query", head))]
        given = {path[0] for path, _ in _references(bodies)}
        for path, line in _references([head.get("key"), head.get("assign")]):
            if path[0] not in given and path[0] not in rules and path[0] not in known:
                yield Problem(line, f"nothing gives {path[0]} a value", "Correct the name, or write `some` or `:=`.")


def unknown_input(module: Outline) -> Iterator[Problem]:
    """Members of the input that the gateway never sends (policies/schema/input.schema.json)."""
    for path, line in _references(module.tree["rules"]):
        node = _schema() if path[0] == "input" else {}
        for depth, member in enumerate(path[1:], 1):
            if node.get("additionalProperties") is not False:
                break
            known: Mapping[str, Any] = node["properties"]
            if member not in known:
                said = ".".join(path[: depth + 1])
                yield Problem(line, f"the gateway sends no {said}", _meant(member, sorted(known)))
                break
            node = known[member]


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else "Correct the name, or remove it."


@cache
def _schema() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return found


# ---- trees ----


def _name(rule: Mapping[str, Any]) -> str:
    node = rule["Default"] if "Default" in rule else next(iter(rule["Spec"]["head"].values()))
    kind, body = next(iter(node["refr"].items()))
    while kind != "Var":
        kind, body = next(iter(body["refr"].items()))
    return str(body["value"])


def _line(rule: Mapping[str, Any]) -> int:
    return int(next(iter(rule.values()))["span"]["line"])


def _paths(rule: Mapping[str, Any], module: Outline, rules: Container[str]) -> Iterator[Name]:
    """Every place below `data` that a rule asks for."""
    for path, _ in _references(rule):
        if path[0] == "data":
            yield path[1:]
        elif path[0] in module.aliases:
            target = module.aliases[path[0]]
            yield (*target[1:], *path[1:]) if target[:1] == ("data",) else (*target, *path[1:])
        elif path[0] in rules:
            yield (*module.package, path[0])


def _references(node: object) -> Iterator[tuple[Name, int]]:
    """Each reference, as far as its keys are known, and its line."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        if len(node) == 1 and (kind := next(iter(node))) in {"Var", "RefDot", "RefBrack"}:
            body, keys = node[kind], list[str | None]()
            while kind in {"RefDot", "RefBrack"}:
                if kind == "RefDot":
                    keys.append(body["field"][1])
                else:
                    keys.append(body["index"].get("String", {}).get("value"))
                    yield from _references(body["index"])
                kind, body = next(iter(body["refr"].items()))
            if kind != "Var":
                yield from _references({kind: body})
                return
            keys.reverse()
            known = keys[: keys.index(None)] if None in keys else keys
            yield (body["value"], *(key for key in known if key is not None)), int(body["span"]["line"])
        else:
            for part in node.values():
                yield from _references(part)
