"""Random Rego: modules of every form of the language, with inputs that make parts of them undefined."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

DATA = {"table": {"a": 1, "b": [1, 2, 3], "c": {"d": "x"}}, "list": ["x", "y", 3, None], "roles": {"staff": ["read"]}}
_NAMES = ("a", "b", "c", "name", "roles")
_TEXTS = ("", "a", "b", "staff", "Grüße", "x-1", "10.0.0.7")
_NUMBERS = ("0", "1", "2", "-3", "2.5", "1e3", "9007199254740993")
_EFFECTS = ("allow", "deny", "step_up", "login", "nonsense")
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "=")
_CALLS = (
    """
count({}) | sum({}) | max({}) | sort({}) | to_number({}) | lower({}) | upper({}) | is_string({}) | type_name({})
is_null({}) | json.marshal({}) | split({}, ",") | concat("-", {}) | startswith({}, "a") | contains({}, "a")
array.concat({}, [1]) | object.keys({}) | object.get({}, "a", "none") | object.union({}, {{"z": 1}}) | trim({}, "a")
regex.match(`^[a-z]+\\d*$`, {}) | sprintf("%v-%s", [{}, 1]) | glob.match("*", [], {}) | abs({}) | round({})
numbers.range(1, {}) | array.slice({}, 0, 1) | net.cidr_contains("10.0.0.0/8", {}) | format_int({}, 16)
base64.encode({}) | semver.is_valid({}) | time.weekday({}) | any_of({}) | twice({}) | union({{{{1}}, {{2}}}})
""".strip()
    .replace("\n", " | ")
    .split(" | ")
)


class Generator:
    """One policy and inputs for it, from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  (a test's choices, no secret)
        self._locals: list[str] = []
        self._helpers: list[str] = []
        self._fresh = 0

    def module(self) -> str:
        """A module of `gateway.authz`. Not every one compiles."""
        parts = ["package gateway.authz", "twice(x) := x + x", "any_of(x) if x[_]", "any_of(x) if x == 1"]
        if self._chance(0.1):
            parts.insert(1, "import input.a as imported")
        for name in ("h0", "h1", "h2", "h3")[: self._random.randint(1, 4)]:
            parts.append(self._helper(name))
            self._helpers.append(name)
        if self._chance(0.6):
            parts.append('default decision := {"effect": "deny", "reasons": ["default_deny"]}')
        parts += [self._decision() for _ in range(self._random.randint(1, 3))]
        return "\n\n".join(parts) + "\n"

    def document(self) -> dict[str, Any]:
        """An input in which any part may be missing."""
        return {name: self._json(3) for name in _NAMES if self._chance(0.75)}

    def _helper(self, name: str) -> str:
        self._locals = []
        return self._pick(
            lambda: f"{name} := {self._value(2)}",
            lambda: f"{name} := {self._value(2)} if {self._body()}",
            lambda: f"{name} if {self._body()}",
            lambda: f"{name} contains {self._bound_value()} if {self._body()}",
            lambda: f"{name}[k] := v if some k, v in {self._value(1)}",
            lambda: f"{name}.x.y := {self._value(1)} if {self._body()}",
            lambda: f"default {name} := {self._literal()}\n\n{name} := {self._value(1)} if {self._body()}",
            lambda: f"{name} := {self._value(1)} if {self._body()} else := {self._value(1)} if {self._body()}",
            lambda: f"{name} := {self._value(1)} if {self._body()}\n\n{name} := {self._value(1)} if {self._body()}",
        )

    def _decision(self) -> str:
        self._locals = []
        effect = self._random.choice(_EFFECTS)
        answer = f'{{"effect": "{effect}", "reasons": ["policy_ok"]}}'
        if self._chance(0.25):
            answer = f'{{"effect": "{effect}", "reasons": {self._value(1)}, "cache_s": {self._literal()}}}'
        elif self._chance(0.25):
            answer = self._value(2)
        text = f"decision := {answer} if {self._body()}"
        return text + (f" else := {self._value(1)}" if self._chance(0.2) else "")

    def _body(self) -> str:
        known = len(self._locals)
        lines = [self._condition() for _ in range(self._random.randint(1, 3))]
        del self._locals[known:]
        return "{\n\t" + "\n\t".join(lines) + "\n}"

    def _condition(self) -> str:
        return self._pick(
            lambda: f"{self._value(2)} {self._random.choice(_COMPARISONS)} {self._reference()}",
            lambda: f"{self._reference()} {self._random.choice(_COMPARISONS)} {self._value(2)}",
            self._reference,
            lambda: self._call(1),
            lambda: f"{self._reference()}[_] == {self._value(1)}",
            lambda: f"{self._reference()}[_].{self._random.choice(_NAMES)}",
            lambda: f"walk({self._reference()}, [_, {self._literal()}])",
            lambda: f"not {self._reference()}",
            lambda: f"not {self._call(1)}",
            lambda: f"not {self._value(1)} == {self._reference()}",
            lambda: f"{self._value(1)} in {self._value(1)}",
            lambda: f"({self._value(1)} in {self._value(1)}) == {self._random.choice(('true', 'false'))}",
            self._some,
            self._assignment,
            lambda: f"every e in {self._reference()} {{ e != {self._literal()} }}",
            lambda: f'{{"a": _}} = {self._reference()}',
            lambda: f"[_, {self._local()}] = {self._reference()}",
            lambda: f"{self._reference()} with input as {json.dumps(self._json(2), ensure_ascii=False)}",
            lambda: f"{self._reference()} with input.{self._random.choice(_NAMES)} as {self._literal()}",
        )

    def _some(self) -> str:
        source = self._reference()
        return (
            f"some {self._local()} in {source}" if self._chance(0.6) else f"some k, {self._local()} in {source}; k != 9"
        )

    def _assignment(self) -> str:
        value = self._value(2)
        return f"{self._local()} := {value}"

    def _bound_value(self) -> str:
        return self._pick(self._literal, self._reference, lambda: f"[{self._reference()}, {self._literal()}]")

    def _value(self, depth: int) -> str:
        simple: list[Callable[[], str]] = [self._literal, self._reference, self._reference]
        if depth > 0:
            simple += [
                lambda: self._call(depth - 1),
                lambda: f"[{self._value(depth - 1)}, {self._value(depth - 1)}]",
                lambda: f"{{{self._value(depth - 1)}, {self._literal()}}}",
                lambda: f'{{"a": {self._value(depth - 1)}, "b": {self._literal()}}}',
                lambda: f"[x | some x in {self._value(depth - 1)}]",
                lambda: f"{{x | some x in {self._value(depth - 1)}; x != {self._literal()}}}",
                lambda: f"{{k: v | some k, v in {self._value(depth - 1)}}}",
                lambda: f"{self._reference()} {self._random.choice('+-*/%&|')} {self._reference()}",
            ]
        return self._pick(*simple)

    def _call(self, depth: int) -> str:
        # A literal of a wrong type does not compile; what comes from the input may be of any.
        argument = self._value(depth) if self._chance(0.1) else self._reference()
        return self._random.choice(_CALLS).format(argument)

    def _reference(self) -> str:
        path = "".join(
            self._pick(
                lambda: f".{self._random.choice(_NAMES)}",
                lambda: f'["{self._random.choice(_NAMES)}"]',
                lambda: f"[{self._random.randint(0, 2)}]",
                lambda: "[input.b]",
            )
            for _ in range(self._random.randint(0, 2))
        )
        roots = (*(f"input.{name}" for name in _NAMES), "data.table", "data.list", "data.missing")
        # A local or a helper has a type, which most paths do not fit.
        typed = self._locals + self._helpers
        if typed and self._chance(0.4):
            return self._random.choice(typed) + (path if self._chance(0.1) else "")
        return self._random.choice(roots) + path

    def _local(self) -> str:
        self._fresh += 1
        self._locals.append(f"v{self._fresh}")
        return self._locals[-1]

    def _literal(self) -> str:
        return self._pick(
            lambda: json.dumps(self._random.choice(_TEXTS), ensure_ascii=False),
            lambda: self._random.choice(_NUMBERS),
            lambda: self._random.choice(("true", "false", "null", "[]", "{}", "set()")),
        )

    def _json(self, depth: int) -> Any:
        kind = self._random.randint(0, 7 if depth else 4)
        if kind <= 1:
            return self._random.choice(_TEXTS)
        if kind == 2:
            return json.loads(self._random.choice(_NUMBERS))
        if kind <= 4:
            return self._random.choice((True, False, None))
        if kind == 5:
            return [self._json(depth - 1) for _ in range(self._random.randint(0, 3))]
        return {name: self._json(depth - 1) for name in _NAMES if self._chance(0.5)}

    def _pick(self, *makers: Callable[[], str]) -> str:
        return self._random.choice(makers)()

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability
