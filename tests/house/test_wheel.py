"""The wheel is the whole product: a gateway that was installed from it sets itself up without the source tree."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

INSTALLED = "installed"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside nothing of ours, with the unpacked wheel in it."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, because setuptools builds inside of the tree.
    for top in ("gateway", "plugins", "policies"):
        shutil.copytree(ROOT / top, folder / "source" / top, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*build, "--wheel-dir", str(folder), str(folder / "source")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / INSTALLED)
    return folder


def run(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = (
        f"import sys; sys.path = [{str(installed / INSTALLED)!r}, *(p for p in sys.path if p != {str(ROOT)!r})];"
        f"sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()];"
        f"import gateway; assert gateway.__file__.startswith({str(installed)!r}), gateway.__file__;"
        "from gateway.cli.app import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *words], cwd=installed, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_gateway_from_the_wheel_sets_itself_up(installed: Path) -> None:
    made = run(installed, "init", "site", "--host", "gateway.corp.example", "--host", "wiki.corp.example")
    assert made.returncode == 0, made.stdout + made.stderr
    shipped = {
        path.relative_to(ROOT / "policies") for path in (ROOT / "policies").rglob("*.*") if "cases" not in path.parts
    }
    assert {path.relative_to(installed / "site/policies") for path in (installed / "site/policies").rglob("*.*")} == {
        path for path in shipped if not path.name.startswith(".")
    }
    checked = run(installed, "check", "--offline", "--config", str(installed / "site" / "gateway.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_everything_that_is_read_at_run_time_is_in_the_wheel(installed: Path) -> None:
    packed = {
        p.relative_to(installed / INSTALLED).as_posix() for p in (installed / INSTALLED).rglob("*") if p.is_file()
    }
    ours = {
        path.relative_to(ROOT).as_posix()
        for top in ("gateway", "plugins")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours - packed == set()
