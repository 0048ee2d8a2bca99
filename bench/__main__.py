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

# Those that measure beside a world of services and a load client, and those that bring their own.
_IN_WORLD: dict[str, Callable[[world.World, _Say], dict[str, Any]]] = {
    "edge": edge.measure,
    "decision": lambda made, say: uvloop.run(decision.measure(made, say)),
    "memory": lambda made, say: uvloop.run(memory.measure(made, say)),
    "revocation": lambda made, say: uvloop.run(revocation.measure(made, say)),
    "scale": lambda made, say: uvloop.run(scale.measure(made, say)),
}
_ALONE: dict[str, Callable[[_Say], dict[str, Any]]] = {
    "login": login.measure,
    "detection": detection.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every group or one; 1 when a measurement could not be made."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Side-by-side measurements.")
    parser.add_argument("--only", choices=[*_IN_WORLD, *_ALONE], help="One group alone.")
    only: str | None = parser.parse_args(arguments).only
    console = Console(soft_wrap=True)
    figures: dict[str, Any] = {}

    def say(text: str) -> None:
        console.print(f"[dim]{text}[/]")

    try:
        in_world = [name for name in _IN_WORLD if only in {None, name}]
        if in_world:
            with world.made() as made:
                uvloop.run(world.enrol(made))
                for name in in_world:
                    figures |= _IN_WORLD[name](made, say)
        for name, measure in _ALONE.items():
            if only in {None, name}:
                figures |= measure(say)
    except (BenchFailed, OSError, subprocess.CalledProcessError) as error:
        console.print(str(error), style="red", markup=False)
        return 1
    together = results.write(figures)
    console.print(results.table(together))
    for remark in results.remarks(together):
        console.print(remark)
    console.print(f"[dim]All figures are in {results.PATH}.[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
