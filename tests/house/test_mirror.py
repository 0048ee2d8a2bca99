"""Unit tests mirror the tree: `gateway/a/b.py` is tested by `tests/unit/a/test_b.py`.

Where those are too many for one file, they are a folder of the module's name: `tests/unit/a/b/test_topic.py`.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.paths import ROOT

UNIT = ROOT / "tests/unit"
# These are outside of the package, and their tests stand in a folder of their name.
BESIDE = ("agent", "plugins", "bench", "docs")
# Plugins are tested by what they promise: the file name tells the contract.
CONTRACTS = {"factor_contract", "obligation_contract", "signal_contract", "signal_history", "signal_theft"}
CONTRACTS |= {"head_obligations"}


def subjects(test: Path) -> list[Path]:
    """Where the module may stand that a test file is about."""
    folder, name = test.relative_to(UNIT).parent, test.stem.removeprefix("test_")
    roots = [ROOT, ROOT / "gateway"] if folder.parts[0] in BESIDE else [ROOT / "gateway"]
    modules = (name, f"__{name}__")
    return [
        root / place
        for root in roots
        for module in modules
        for place in (folder / f"{module}.py", folder / module / "__init__.py", folder.with_suffix(".py"))
    ]


def test_every_unit_test_is_named_after_its_module() -> None:
    tests = sorted(UNIT.rglob("test_*.py"))
    assert len(tests) > 100
    strays = [
        test.relative_to(ROOT).as_posix()
        for test in tests
        if test.stem.removeprefix("test_") not in CONTRACTS and not any(path.is_file() for path in subjects(test))
    ]
    assert strays == []


def test_no_test_edits_the_import_path() -> None:
    word = "sys." + "path"
    editors = [
        path.relative_to(ROOT).as_posix()
        for path in sorted(ROOT.glob("tests/**/*.py"))
        if f"{word}.insert" in (text := path.read_text(encoding="utf-8")) or f"{word}.append" in text
    ]
    assert editors == []
