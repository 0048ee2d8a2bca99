"""No process globals: what lives longer than a call lives in an object that somebody was given."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

MUTATORS = {
    *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "add", "discard", "update"),
    *(
        "setdefault",
        "popitem",
        "appendleft",
        "popleft",
        "move_to_end",
        "set",
        "put",
        "put_nowait",
        "intersection_update",
    ),
}
# file::name: reason.
KNOWN = {
    "gateway/audit/decision_log.py::_PID": "the process's own number, set again after a fork",
    "gateway/pipeline/context.py::_NUMBERS": "numbers the decisions of a process, whichever generation makes them",
    "gateway/policy/engines/compiled_policy.py::_TICKETS": "numbers the evaluations of the process's one library",
}


def process_state(path: Path, root: Path = ROOT) -> Iterator[str]:
    """`file::name` of each name of a module, or attribute of its classes, that a function changes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = {name.id for node in tree.body for name in ast.walk(node) if isinstance(name, ast.Name)} & {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    names: set[str] = set()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        local = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)} | {
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                names |= set(node.names)
            names |= _changed(node, (module | classes) - local, classes)
    yield from (f"{path.relative_to(root).as_posix()}::{name}" for name in sorted(names))


def _changed(node: ast.AST, shared: set[str], classes: set[str]) -> set[str]:
    owner: ast.AST | None = None
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        owner = node.value
    elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        owner = node.value
        if isinstance(owner, ast.Name) and owner.id in classes & shared:
            return {f"{owner.id}.{node.attr}"}
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        owner = node.func.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "next" and node.args:
        owner = node.args[0]
    return {owner.id} if isinstance(owner, ast.Name) and owner.id in shared - classes else set()


def test_no_function_changes_what_belongs_to_the_process() -> None:
    sources = sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("plugins/**/*.py"), *ROOT.glob("agent/**/*.py")])
    assert {place for path in sources for place in process_state(path)} == set(KNOWN)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("class _House:\n    company = 1\n\ndef introduce(x):\n    _House.company = x\n", ["_House.company"]),
        ("SEEN = {}\n\ndef f(k):\n    SEEN[k] = 1\n", ["SEEN"]),
        ("SEEN = set()\n\ndef f(k):\n    SEEN.add(k)\n", ["SEEN"]),
        ("COUNT = 0\n\ndef f():\n    global COUNT\n    COUNT += 1\n", ["COUNT"]),
        ("NUMBERS = count()\n\ndef f():\n    return next(NUMBERS)\n", ["NUMBERS"]),
        ("SEEN = {}\n\ndef f(SEEN):\n    SEEN[1] = 1\n", []),
        ("TABLE = {1: 2}\n\ndef f(k):\n    return TABLE[k]\n", []),
    ],
)
def test_the_finder_sees_what_is_changed(tmp_path: Path, source: str, names: list[str]) -> None:
    file = tmp_path / "x.py"
    file.write_text(source)
    assert [*process_state(file, tmp_path)] == [f"x.py::{name}" for name in names]
