"""`python -m bench [--only GROUP]`: measure, print a table, write bench/results.json."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from rich.console import Console

from bench import decision, detection, edge, login, memory, results, revocation, scale, world
from bench.processes import BenchFailed

type _Say = Callable[[str], None]


def in_world(measure: Callable[[world.World, _Say], dict[str, Any]]) -> Callable[[_Say], dict[str, Any]]:
    """A group that measures in a world of its own: state, keys and devices of another group never reach it."""

    def run(say: _Say) -> dict[str, Any]:
        with world.made() as made:
            uvloop.run(world.enrol(made))
            return measure(made, say)

    return run


GROUPS: dict[str, Callable[[_Say], dict[str, Any]]] = {
    "edge": in_world(edge.measure),
    "decision": in_world(lambda made, say: uvloop.run(decision.measure(made, say))),
    "memory": in_world(lambda made, say: uvloop.run(memory.measure(made, say))),
    "revocation": in_world(lambda made, say: uvloop.run(revocation.measure(made, say))),
    "scale": in_world(lambda made, say: uvloop.run(scale.measure(made, say))),
    "login": login.measure,
    "detection": detection.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every group or one; 1 when a measurement could not be made. Each group is written when it ends."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Side-by-side measurements.")
    parser.add_argument("--only", choices=list(GROUPS), help="One group alone.")
    only: str | None = parser.parse_args(arguments).only
    console = Console(soft_wrap=True)

    def say(text: str) -> None:
        console.print(f"[dim]{text}[/]")

    failures: dict[str, str] = {}
    figures: dict[str, Any] = {}
    for name in GROUPS if only is None else [only]:
        say(f"[bold]{name}[/]")
        try:
            figures = results.write(GROUPS[name](say))
        except (BenchFailed, OSError, subprocess.CalledProcessError) as error:
            failures[name] = str(error) or type(error).__name__
            console.print(f"{name}: {failures[name]}", style="red", markup=False)
    if figures:
        console.print(results.table(figures))
        for remark in results.remarks(figures):
            console.print(remark)
        console.print(f"[dim]All figures are in {results.PATH}.[/]")
    for name, reason in failures.items():
        console.print(f"not measured: {name}: {reason}", style="red", markup=False)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
