"""One law, one place: what may stand in one module only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import gateway.core.paths
from tests.support.paths import ROOT

# The device's side is a program of its own and imports nothing of the gateway.
SOURCES = [
    path
    for path in sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("plugins/**/*.py"), *ROOT.glob("bench/**/*.py")])
    if not path.is_relative_to(ROOT / "gateway/agent")
]
OWN_URL = re.compile(r"/\.gateway\b|/\.well-known/(?:oauth-protected-resource|ssf-configuration)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_own_urls_stand_in_core_paths_only() -> None:
    places = [f"{name_of(path)}:{line}" for path in SOURCES for line, text in literals(path) if OWN_URL.search(text)]
    assert {place.partition(":")[0] for place in places} == {"gateway/core/paths.py"}, places


def test_the_pages_get_the_own_urls_from_core_paths() -> None:
    templates = sorted(path for path in (ROOT / "gateway/replies/templates").iterdir() if path.is_file())
    assert templates
    assert [name_of(path) for path in templates if OWN_URL.search(path.read_text(encoding="utf-8"))] == []


def own_urls() -> list[str]:
    return [value for value in vars(gateway.core.paths).values() if isinstance(value, str) and OWN_URL.match(value)]


def test_no_two_names_are_the_same_own_url() -> None:
    urls = own_urls()
    assert len(urls) == len(set(urls)) > 20


def test_replies_are_built_in_replies_only() -> None:
    builders = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reply"
    ]
    assert builders
    assert [place for place in builders if not place.startswith("gateway/replies/")] == []


def test_the_device_asks_at_the_paths_that_the_gateway_serves() -> None:
    asked = {text for path in ROOT.glob("gateway/agent/*.py") for _, text in literals(path) if OWN_URL.match(text)}
    assert len(asked) == 3
    assert asked <= set(own_urls())
