"""Law 8: a local is named after what it is; a pronoun or a participle is no name beyond three lines."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

BANNED = {"said", "told", "found", "kept", "made", "what", "who", "one", "mine", "way", "there", "held"}
LINES = 3
# How many are left in each package. Whoever renames some lowers the number; nobody raises one.
LEFT = {
    "gateway/core": 5,
    "gateway/edge": 1,
    "gateway/identity": 64,
    "gateway/policy": 4,
    "tests": 228,
}

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def long_lived(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each banned local or parameter that lives for more than three lines."""
    yield from _scope(ast.parse(source))


def _scope(scope: ast.AST) -> Iterator[tuple[int, str]]:
    uses: dict[str, list[int]] = defaultdict(list)
    bound: set[str] = set()
    inner: list[ast.AST] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (*_FUNCTIONS, ast.ClassDef)):
                inner.append(child)
                # What a closure reads lives as long as the closure.
                for name in (name for name in ast.walk(child) if isinstance(name, ast.Name)):
                    uses[name.id].append(name.lineno)
                continue
            if isinstance(child, ast.Name):
                uses[child.id].append(child.lineno)
                if isinstance(child.ctx, ast.Store):
                    bound.add(child.id)
            elif isinstance(child, ast.arg):
                uses[child.arg].append(child.lineno)
                bound.add(child.arg)
            visit(child)

    visit(scope)
    if not isinstance(scope, ast.ClassDef):
        for name in sorted(BANNED & bound):
            if max(uses[name]) - min(uses[name]) >= LINES:
                yield min(uses[name]), name
    for child in inner:
        yield from _scope(child)


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if parts[0] == "gateway" and len(parts) > 2 else parts[0]


def test_locals_are_named_after_what_they_are() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for top in ("gateway", "agent", "plugins", "bench", "tests"):
        for path in sorted(ROOT.glob(f"{top}/**/*.py")):
            for line, name in long_lived(path.read_text(encoding="utf-8")):
                places[package_of(path)].append(f"{path.relative_to(ROOT)}:{line} {name}")
    too_many = {package: names for package, names in places.items() if len(names) > LEFT.get(package, 0)}
    assert too_many == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(x):\n    found = x\n    return found\n", []),
        ("def f(x):\n    found = x\n\n\n    return found\n", ["found"]),
        ("def f(who):\n    a = 1\n    b = 2\n    return who\n", ["who"]),
        ("def f():\n    kept = 1\n    def g():\n        pass\n        return kept\n", ["kept"]),
        ("async def f():\n    for one in []:\n        a = 1\n        b = 2\n        g(one)\n", ["one"]),
        ("class A:\n    made: int\n\n\n    other: int = made\n", []),
    ],
)
def test_the_finder_counts_lines_in_functions(source: str, names: list[str]) -> None:
    assert [name for _, name in long_lived(source)] == names
