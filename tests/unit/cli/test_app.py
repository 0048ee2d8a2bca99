"""The command line: answers on stdout, errors on stderr, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from gateway import __version__
from gateway.cli.app import app
from gateway.config import json_schema, markdown
from tests.support.cli_world import gateway


def test_the_module_runs_as_a_process_and_help_is_quick_to_import(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "config", "schema"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json_schema()
    code = "import sys, gateway.cli.app; print(sorted({'mitmproxy','ctypes','httpx','pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "check"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "There is no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_and_the_help_are_told() -> None:
    assert gateway("--version").stdout == f"gateway {__version__}\n"
    text = gateway("--help").stdout
    for command in ("init", "check", "serve", "demo", "pki", "device", "session", "config"):
        assert command in text


@pytest.mark.parametrize("arguments", [("bogus",), ("check", "--bogus"), ("device", "add"), ("pki", "init")])
def test_wrong_usage_leaves_with_two(arguments: tuple[str, ...]) -> None:
    assert gateway(*arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("serve",),
        ("device", "list"),
        ("device", "add", "x", "--owner", "y"),
        ("session", "list"),
        ("pki", "show"),
        ("pki", "crl"),
    ],
)
def test_every_command_tells_a_bad_configuration_in_the_same_way(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("servces: {}\n")
    result = gateway(*arguments, "--config", file)
    assert result.exit_code == 1
    assert f"{file}:1:1" in result.stderr.replace("\n", "")
    assert "Did you mean `services`?" in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_the_schema_and_the_page_go_to_stdout_or_a_file(tmp_path: Path) -> None:
    assert gateway("config", "docs").stdout == markdown()
    assert gateway("config", "schema", "-o", tmp_path / "schema.json").exit_code == 0
    assert json.loads((tmp_path / "schema.json").read_text()) == json_schema()
    assert gateway("config", "docs", "-o", tmp_path / "none" / "x.md").exit_code == 1


def test_the_configuration_may_be_named_by_the_environment(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", str(site / "gateway.yaml"))
    assert gateway("device", "list", "--json").stdout == "[]\n"


def _commands(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield names
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*names, name))


@pytest.mark.parametrize("names", list(_commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_explains_itself_at_h(names: tuple[str, ...]) -> None:
    short, long = gateway(*names, "-h"), gateway(*names, "--help")
    assert short.exit_code == 0
    assert "Usage: " in short.stdout
    assert short.stdout == long.stdout


def test_the_shell_can_complete_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=os.environ | {"_GATEWAY_COMPLETE": "complete_bash", "COMP_WORDS": "gateway dev", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["device"]
