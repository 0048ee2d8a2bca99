"""The policy folder of a configuration, loaded for a command; its problems in a terminal, with carets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.shell import load_config

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.policy.bundle.model import Bundle, BundleError


def load_bundle(config: Config, *, json_wanted: bool, services: Mapping[str, Any] | None = None) -> Bundle:
    """The policies as the gateway loads them; where they do not load, their problems are shown and the command ends."""
    from gateway.policy.bundle.loader import examine, service_data  # noqa: PLC0415

    folder = config.policy.path
    bundle, problems = examine(folder, service_data(config.services) if services is None else services, strict=True)
    if bundle is None:
        show_problems(folder, problems, json_wanted=json_wanted)
        raise typer.Exit(1)
    return bundle


def policy_folder(path: Path) -> tuple[Config, Path]:
    """The configuration in a file, and its policy folder. Raises ConfigError, ActionFailed."""
    from gateway.operations.errors import ActionFailed  # noqa: PLC0415

    config = load_config(path)
    if not config.policy.path.is_dir():
        raise ActionFailed(f"There is no folder {config.policy.path}.", "Correct `policy.path`.")
    return config, config.policy.path


def show_problems(folder: Path, problems: Sequence[BundleError], *, json_wanted: bool, word: str = "error") -> None:
    """Each problem with its place, its line with a caret below, and what to do; as JSON a list of objects."""
    if json_wanted:
        output.as_json([problem_document(problem) for problem in problems])
        return
    style = "red" if word == "error" else "yellow"
    for problem in problems:
        place = problem.file + (f":{problem.line}" + (f":{problem.column}" if problem.column else "")) * bool(
            problem.line
        )
        output.note(f"[bold {style}]{word}[/] {escape(place)} {escape(output.printable(problem.message))}")
        for line in _excerpt(folder, problem):
            output.note(f"  {escape(line)}")
        output.note(f"  [dim]fix[/] {escape(output.printable(problem.fix))}")


def problem_document(problem: BundleError) -> Mapping[str, Any]:
    """A problem as JSON has it: rows and columns count from 1, 0 is the whole file."""
    names = ("file", "line", "column", "width", "code", "message", "fix")
    return {name: getattr(problem, name) for name in names}


def _excerpt(folder: Path, problem: BundleError) -> Sequence[str]:
    """The line, and a caret below; nothing where the place is unknown."""
    if not problem.line or not problem.column:
        return ()
    try:
        lines = (folder / problem.file).read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return ()
    if problem.line > len(lines):
        return ()
    text = lines[problem.line - 1].removesuffix("\r")
    # OPA counts bytes; a tab is four columns wide here.
    before = text.encode()[: problem.column - 1].decode(errors="replace")
    number = f"{problem.line} | "
    margin = len(number) + len(before) + 3 * before.count("\t")
    width = max(1, min(problem.width, len(text) - len(before)))
    return (number + output.printable(text.replace("\t", "    ")), " " * margin + "^" * width)
