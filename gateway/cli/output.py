"""What the command line prints: tables, problems, JSON. Answers go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from gateway.config import Problem

# A pipe has no width: a table that is read by a program or a log is not folded.
_PIPE_COLUMNS = 240

out = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
err = Console(stderr=True)


def say(text: str) -> None:
    """One plain line on stdout."""
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """One line on stderr, with rich markup."""
    err.print(text, highlight=False, soft_wrap=True)


def fail(message: str, fix: str = "") -> None:
    """An error and what to do about it, on stderr."""
    note(f"[bold red]error[/] {escape(message)}")
    if fix:
        note(f"  [dim]fix[/] {escape(fix)}")


def as_json(value: Any) -> None:
    """A value as JSON on stdout."""
    say(json.dumps(value, indent=2, default=str))


def rows(columns: Sequence[str], entries: Iterable[Mapping[str, Any]], *, json_wanted: bool, empty: str) -> None:
    """Entries as a table, or as a JSON list of objects with every member they have."""
    entries = list(entries)
    if json_wanted:
        as_json(entries)
        return
    if not entries:
        note(escape(empty))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    for entry in entries:
        table.add_row(*(escape(printable(entry.get(column, ""))) for column in columns))
    out.print(table)


def facts(entry: Mapping[str, Any], *, json_wanted: bool) -> None:
    """One entry, a line for each member; or as a JSON object."""
    if json_wanted:
        as_json(entry)
        return
    width = max(map(len, entry), default=0)
    for name, value in entry.items():
        say(f"{name:<{width}}  {printable(value)}")


def printable(value: object) -> str:
    """A value as text without control characters: names and paths come from outside, and a terminal obeys them."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value))


def problems(found: Sequence[Problem], *, style: str = "red", word: str = "problem") -> None:
    """Each problem in three lines: where, what, fix."""
    for problem in found:
        place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else str(problem.file)
        key = f" [dim]{escape(problem.key)}[/]" if problem.key else ""
        note(f"[bold {style}]{word}[/] {escape(place)}{key}")
        note(f"  {escape(problem.message)}")
        note(f"  [dim]fix[/] {escape(problem.fix)}")


def moment(seconds: float | None) -> str:
    """A time as people read it (UTC), "" for none."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
