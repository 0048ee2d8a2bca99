"""Each law of docs/architecture.md has tests, and the tests that it names are there."""

from __future__ import annotations

import ast
import re

from tests.support.paths import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d) \| (.+?) \| (.+?) \|$", re.MULTILINE)
TEST = re.compile(r"`([a-z0-9_/]+)(?:::(test_[a-z0-9_]+))?`")
# The limits and an upstream's settings are values of the configuration.
EDGE_MAY_IMPORT = {"config", "core", "observability", "obligations", "replies", "pipeline", "edge"}


def rows() -> list[tuple[str, str, str]]:
    section = PAGE.partition("## The laws")[2].partition("\n## ")[0]
    return ROW.findall(section)


def test_every_law_names_a_test_that_is_there() -> None:
    laws = rows()
    assert [number for number, _, _ in laws] == [str(number) for number in range(1, len(laws) + 1)]
    assert len(laws) == 8
    for number, law, tests in laws:
        named = TEST.findall(tests)
        assert named, f"law {number} has no test: {law}"
        for file, function in named:
            path = ROOT / "tests" / f"{file}.py"
            assert path.is_file(), f"law {number}: no {path}"
            functions = set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
            assert function in functions if function else functions, f"law {number}: no {function} in {file}"


def test_an_edge_decides_nothing_it_sees_no_part_that_does() -> None:
    nodes = [
        node
        for path in ROOT.glob("gateway/edge/**/*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    seen = {node.module.split(".")[1] for node in nodes if (node.module or "").startswith("gateway.") and node.module}
    seen |= {alias.name for node in nodes if node.module == "gateway" for alias in node.names}
    assert seen <= EDGE_MAY_IMPORT
    assert {"policy", "identity", "risk", "adapters", "endpoints"} & seen == set()
