r"""What a policy may say: pure Rego that means the same in every engine. Pure functions over regorus' syntax trees.

Law: only builtins that are listed here may be called. They have no side effect, need no clock, network or randomness,
both engines have them, and tests/parity compares what they answer. Left out on purpose, because the engines differ:
sprintf, json.marshal, yaml.*, upper, strings.replace_n, glob.match, time.format; and, in regular expressions, whatever
Go and Rust read in two ways (\d, \w, \s, \b, flags, look-around).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NAMES = """
abs array.concat array.reverse array.slice base64.decode base64.encode base64.is_valid base64url.decode
base64url.encode base64url.encode_no_pad bits.and bits.or bits.xor ceil concat contains count endswith floor
format_int graph.reachable hex.decode hex.encode indexof indexof_n intersection is_array is_boolean is_null
is_number is_object is_set is_string json.filter json.is_valid json.remove json.unmarshal lower max min
net.cidr_contains net.cidr_is_valid numbers.range object.filter object.get object.keys object.remove object.subset
object.union object.union_n product regex.match replace round semver.compare semver.is_valid sort split startswith
strings.any_prefix_match strings.any_suffix_match strings.count strings.reverse substring sum time.clock time.date
time.diff time.parse_duration_ns time.parse_rfc3339_ns time.weekday to_number trim trim_left trim_prefix trim_right
trim_space trim_suffix type_name union units.parse_bytes urlquery.decode urlquery.encode walk
"""
BUILTINS = frozenset(_NAMES.split())
_ROOTS = frozenset(name.split(".")[0] for name in BUILTINS) | {"http", "opa", "rand", "uuid", "io", "crypto", "rego"}
_IMPURE = {
    "http.send": "Policies are pure: put what it would fetch into data/ or into the input.",
    "net.lookup_ip_addr": "Policies are pure: put what it would look up into data/ or into the input.",
    "time.now_ns": "Policies are pure: use input.now (seconds since the epoch).",
    "opa.runtime": "Policies are pure: put settings into data/.",
    "rand.intn": "Policies are pure: a decision must be repeatable.",
    "uuid.rfc4122": "Policies are pure: a decision must be repeatable.",
    "print": "Remove it; in tests, `opa test -v` shows what a rule answers.",
    "trace": "Remove it; in tests, `opa test -v` shows what a rule answers.",
    "sprintf": "The engines format differently: use concat and format_int.",
    "upper": "The engines differ: compare with lower.",
    "glob.match": "The engines differ: use startswith, endswith, split or regex.match.",
}
_PORTABLE_PATTERN = re.compile(
    r"(?:[^\\\[\](){}]"  # any plain character, anchors, alternatives and repetitions among them
    r"|\\[\\.\-/^$|?*+()\[\]{}nrt]"
    r"|\((?:\?:|(?!\?))|\)"
    r"|\{\d{1,3}(?:,\d{0,3})?\}"
    r"|\[\^?(?:[^\\\[\]&~^-]|\\[\\\[\]^.\-/]|-(?!-))+\])*\Z"
)
_WALK_ARITY = 2
_SCALARS = frozenset({"String", "RawString", "Number", "Bool", "True", "False", "Null"})
_NEGATION_FIX = "Name it in a rule of its own, `ok if ...`, and write `not ok`."


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a module is refused: `line` counts from 1."""

    line: int
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Outline:
    """What has to be known of a module: its package, its rules and the functions among them with their arity."""

    package: tuple[str, ...]
    rules: frozenset[str]
    functions: Mapping[str, int]
    aliases: Mapping[str, tuple[str, ...]]
    tree: Mapping[str, Any]
    roots: Mapping[str, int]


def outline(tree: Mapping[str, Any], source: str) -> Outline:
    """Read a module's syntax tree. Rules are named by the first part of their head."""
    rules: set[str] = set()
    functions: dict[str, int] = {}
    for rule in tree["rules"]:
        head, args = _head(rule)
        rules.add(head)
        if args is not None:
            functions[head] = args
    aliases: dict[str, tuple[str, ...]] = {}
    roots: dict[str, int] = {}
    raw = source.encode()
    for entry in tree["imports"]:
        path = _path(entry["refr"])
        span = entry.get("as")
        name = raw[span["start"] : span["end"]].decode(errors="replace") if span else path[-1]
        aliases[name] = path
        roots[name] = entry["span"]["line"]
    return Outline(_path(tree["package"]["refr"]), frozenset(rules), functions, aliases, tree, roots)


def problems(module: Outline, functions: Mapping[tuple[str, ...], int], rules: frozenset[str]) -> Iterator[Problem]:
    """Everything in one module that is not portable.

    `functions`: every function of the bundle, by path, with its arity; `rules`: every rule of the module's package.
    """
    loose = rules | {"input", "data", *module.aliases}
    for name, line in module.roots.items():
        if name in _ROOTS:
            yield Problem(line, f"the import is called {name}, like a builtin", "Give it another name with `as`.")
    for negation in find("NotExpr", module.tree["rules"]):
        if not _sane_negation(loose, negation["expr"]):
            line = negation["span"]["line"]
            yield Problem(line, "the engines differ on this negation when a part of it is undefined", _NEGATION_FIX)
    for call in find("Call", module.tree["rules"]):
        line, params = call["span"]["line"], call["params"]
        target = _target(module, call)
        name = ".".join(_path(call["fcn"]))
        if target in functions:
            if len(params) != functions[target]:
                yield Problem(line, f"{name} takes {functions[target]} arguments", "Correct the call.")
        elif name not in BUILTINS:
            fix = _IMPURE.get(name, "Use a function of this bundle, or a builtin from docs/policy-authors.md.")
            yield Problem(line, f"{name} is no function that a policy may call", fix)
        elif name == "regex.match":
            pattern = params[0].get("String") or params[0].get("RawString") if params else None
            if not pattern or not _PORTABLE_PATTERN.match(_text(pattern)):
                fix = "Write it as a literal, with classes such as [0-9] and [a-z]; no \\d, no flags, no look-around."
                yield Problem(line, "the pattern of regex.match is not portable", fix)
        elif name == "walk" and len(params) != _WALK_ARITY:
            yield Problem(line, "walk takes two arguments here", "Write walk(value, [path, member]).")


def _sane_negation(loose: Container[str], node: Mapping[str, Any]) -> bool:
    """Whether `not node` means the same everywhere when a part of it is undefined.

    OPA works out the operands of a call, a comparison or `in` before the negation, so that an undefined one makes the
    whole body undefined; regorus works them out inside, so that the negation holds. What is left is a reference, an
    equality of references, and operands that are always defined. `loose`: names that may be undefined.
    """
    kind, body = next(iter(node.items()))
    if _is_reference(loose, node):
        return True
    if kind == "BoolExpr" and body["op"] == "Eq":
        return all(_is_reference(loose, side) or _is_defined(loose, side) for side in (body["lhs"], body["rhs"]))
    operands = body["params"] if kind == "Call" else [part for part in body.values() if _is_node(part)]
    return all(_is_defined(loose, operand) for operand in operands)


def _is_reference(loose: Container[str], node: Mapping[str, Any]) -> bool:
    kind, body = next(iter(node.items()))
    if kind == "RefBrack":
        return _is_reference(loose, body["refr"]) and _is_defined(loose, body["index"])
    return kind == "Var" or (kind == "RefDot" and _is_reference(loose, body["refr"]))


def _is_defined(loose: Container[str], node: Mapping[str, Any]) -> bool:
    """A constant, or a variable of the body (a rule's name may be undefined)."""
    kind, body = next(iter(node.items()))
    if kind == "Var":
        return body["value"] not in loose
    if kind in {"Array", "Set"}:
        return all(_is_defined(loose, item) for item in body["items"])
    return kind in _SCALARS


def _is_node(part: object) -> bool:
    return isinstance(part, dict) and len(part) == 1 and next(iter(part))[0].isupper()


def recursion(modules: Sequence[tuple[str, Outline]]) -> tuple[str, Problem] | None:
    """A function that calls itself, by whatever way: OPA refuses it, and the embedded engine would crash."""
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    places: dict[tuple[str, ...], tuple[str, int]] = {}
    for file, module in modules:
        for rule in module.tree["rules"]:
            head, _ = _head(rule)
            node = (*module.package, head)
            places.setdefault(node, (file, next(iter(rule.values()))["span"]["line"]))
            graph.setdefault(node, set()).update(_target(module, call) for call in find("Call", rule))
    for start, called in graph.items():
        seen: set[tuple[str, ...]] = set()
        waiting = list(called)
        while waiting:
            node = waiting.pop()
            if node == start:
                file, line = places[start]
                return file, Problem(line, f"{start[-1]} calls itself", "Rego has no recursion; use walk or a rule.")
            if node not in seen:
                seen.add(node)
                waiting.extend(graph.get(node, ()))
    return None


def _head(rule: Mapping[str, Any]) -> tuple[str, int | None]:
    """The name of a rule, and its number of arguments when it is a function."""
    if "Default" in rule:
        args = rule["Default"]["args"]
        return _path(rule["Default"]["refr"])[0], len(args) or None
    kind, head = next(iter(rule["Spec"]["head"].items()))
    return _path(head["refr"])[0], len(head["args"]) if kind == "Func" else None


def _target(module: Outline, call: Mapping[str, Any]) -> tuple[str, ...]:
    """The full path of what is called, as far as it is a function of the bundle."""
    path = _path(call["fcn"])
    if path[0] == "data":
        return path[1:]
    if path[0] in module.aliases and module.aliases[path[0]][0] == "data":
        return (*module.aliases[path[0]][1:], *path[1:])
    return (*module.package, *path)


def _path(node: Mapping[str, Any]) -> tuple[str, ...]:
    """The constant parts of a reference, as far as they go."""
    kind, body = next(iter(node.items()))
    if kind == "Var":
        return (str(body["value"]),)
    if kind == "RefDot":
        return (*_path(body["refr"]), str(body["field"][1]))
    if kind == "RefBrack":
        index = body["index"].get("String")
        return (*_path(body["refr"]), str(index["value"])) if index else _path(body["refr"])
    return ("",)


def _text(literal: Mapping[str, Any]) -> str:
    return str(literal["value"])


def find(kind: str, node: Any) -> Iterator[Mapping[str, Any]]:
    """Every node of a kind below a node."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            if kind in current:
                yield current[kind]
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)
