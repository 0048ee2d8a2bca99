"""Law 4: what is unknown is denied. Every place that catches everything stands here, with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

ALL = {"Exception", "BaseException"}
# file::function: reason.
KNOWN = {
    "gateway/pipeline/deadline.py::within_deadline": "a stage that fails denies",
    "gateway/pipeline/interaction.py::Interaction.answer_locally": "an own endpoint that fails denies",
    "gateway/pipeline/conclusion.py::Conclusion.conclude_failure": "the record or the page failed too: a bare denial",
    "gateway/obligations/steps.py::run": "a handler that fails is ObligationFailed, which denies",
    "gateway/edge/mitm/connection.py::ClientConnection.pump": "a bug in a protocol layer ends its connection",
    "gateway/server/edge_host.py::EdgeHost._check_connections": "one connection's bug must not end the others",
    "gateway/server/worker.py::_reloads": "the old generation serves on, whatever is wrong with the new configuration",
    "gateway/server/worker.py::main": "the supervisor hears of it, and the worker ends",
    "gateway/wiring/generation.py::policy_engine": "a half-started engine is closed, then the error is raised again",
    "gateway/adapters/sqlite/file.py::SqliteFile._transact": "it is undone, then the error is raised again",
    "gateway/adapters/sqlite/file.py::SqliteFile._step": "the error is handed to the caller in another thread",
}


def catch_all_places(path: Path, root: Path = ROOT) -> Iterator[str]:
    """`file::function` of each handler that catches every exception, and of each `suppress` that does."""

    def visit(node: ast.AST, names: tuple[str, ...]) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = (*names, node.name)
        caught: list[ast.expr] = []
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                caught = [ast.Name("BaseException")]
            else:
                caught = list(node.type.elts) if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"suppress", "contextlib.suppress"}:
            caught = node.args
        if any(isinstance(name, ast.Name) and name.id in ALL for name in caught):
            yield f"{path.relative_to(root).as_posix()}::{'.'.join(names)}"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, names)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), ())


def test_every_place_that_catches_everything_is_listed_with_its_reason() -> None:
    sources = sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("plugins/**/*.py"), *ROOT.glob("agent/**/*.py")])
    places = {place for path in sources for place in catch_all_places(path)}
    assert places == set(KNOWN), "not listed, or listed and gone"
    assert all(KNOWN.values())


@pytest.mark.parametrize(
    "handler",
    ["except Exception:", "except BaseException as error:", "except (ValueError, Exception):", "except:"],
)
def test_the_finder_sees_every_way_to_catch_everything(tmp_path: Path, handler: str) -> None:
    file = tmp_path / "x.py"
    file.write_text(f"def f():\n    try:\n        pass\n    {handler}\n        pass\n")
    assert [*catch_all_places(file, tmp_path)] == ["x.py::f"]


def test_the_finder_sees_a_suppressed_exception(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("with contextlib.suppress(OSError, Exception):\n    pass\n")
    assert [*catch_all_places(file, tmp_path)] == ["x.py::"]
    file.write_text("with contextlib.suppress(OSError):\n    pass\n")
    assert [*catch_all_places(file, tmp_path)] == []
