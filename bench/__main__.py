"""`python -m bench [--only edge|decision|memory]`: measure, print a table, write bench/results.json."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import uvloop
from rich.console import Console

from bench import decision, edge, memory, results, world
from bench.processes import BenchFailed

_GROUPS = ("edge", "decision", "memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every group or one; 1 when a measurement could not be made."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Side-by-side measurements.")
    parser.add_argument("--only", choices=_GROUPS, help="One group alone.")
    only: str | None = parser.parse_args(arguments).only
    console = Console(soft_wrap=True)
    figures: dict[str, Any] = {}

    def say(text: str) -> None:
        console.print(f"[dim]{text}[/]")

    try:
        with world.made() as made:
            uvloop.run(world.enrol(made))
            for group in (only,) if only else _GROUPS:
                if group == "edge":
                    figures |= edge.measure(made, say)
                else:
                    module = decision if group == "decision" else memory
                    figures |= uvloop.run(module.measure(made, say))
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
