"""`gateway demo`: bring the demo world up, walk through it, show what was seen; at a terminal, then keep serving."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table

from gateway.demo.clients import http as client
from gateway.demo.processes import ProcessFailed
from gateway.demo.tour.steps import Seen, Step
from gateway.demo.tour.tour import Tour
from gateway.demo.world import DIRECTORY, PORTAL, World, WorldFailed
from gateway.identity.devices.ca_files import write_file

_INTERRUPTED = 130


def run() -> int:
    """The whole demo: 0 when every step passed, 1 when one failed, 130 after Ctrl-C during the tour."""
    console = Console(highlight=False)
    with _ending_on_signals(), World() as world:
        try:
            passed, failed = _show(world, console)
        except KeyboardInterrupt:
            return _INTERRUPTED
        except ProcessFailed as error:
            console.print(str(error), style="red", markup=False)
            passed, failed = 0, 1
        console.print(f"demo: {passed} passed, {failed} failed", style="red bold" if failed else "green bold")
        if console.is_terminal and sys.stdin.isatty() and not failed:
            with contextlib.suppress(KeyboardInterrupt):
                _serve_on(world, console)
    return 1 if failed else 0


def _show(world: World, console: Console) -> tuple[int, int]:
    """Start the world and take every step: how many passed and failed."""
    started = time.monotonic()
    with console.status("Starting a provider, two services and the gateway, each a process of its own"):
        world.start()
    tour = Tour(world)
    try:
        steps = tour.steps()
        seen = _at_terminal(steps, console) if console.is_terminal else _in_lines(steps, console)
    finally:
        tour.close()
    passed = sum(one.passed for one in seen)
    if passed < len(seen) and (said := world.tail("gateway")):
        console.print(f"The gateway said last:\n{said}", markup=False)
    console.print(f"{time.monotonic() - started:.0f} s in all", style="dim")
    return passed, len(seen) - passed


def _in_lines(steps: Sequence[Step], console: Console) -> list[Seen]:
    """A plain line for each step."""
    seen: list[Seen] = []
    for step in steps:
        outcome = step.take()
        seen.append(outcome)
        verdict = "ok  " if outcome.passed else "FAIL"
        seen_text = f"seen {outcome.text} | {outcome.code or '-'}"
        line = f"{verdict} {step.group}: {step.title} | expected {step.expected} | {seen_text}"
        console.print(line, markup=False, soft_wrap=True)
    return seen


def _at_terminal(steps: Sequence[Step], console: Console) -> list[Seen]:
    """One table that grows with every step."""
    seen: list[Seen] = []
    with Live(_table(steps, seen), console=console, refresh_per_second=12, vertical_overflow="visible") as live:
        for step in steps:
            seen.append(step.take())
            live.update(_table(steps, seen), refresh=True)
    return seen


def _table(steps: Sequence[Step], seen: Sequence[Seen]) -> Table:
    """The steps taken so far, and the one under way."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, expand=True)
    for name, share in (("step", 8), ("expected", 7), ("seen", 7), ("reason code", 7)):
        table.add_column(name, ratio=share, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    group = ""
    for step, outcome in zip(steps, seen, strict=False):
        if step.group != group:
            if group:
                table.add_row()
            group = step.group
            table.add_row(f"[bold cyan]{escape(group)}[/]", "", "", "", "")
        mark = "[bold green]passed[/]" if outcome.passed else "[bold red]FAILED[/]"
        code = f"[yellow]{escape(outcome.code)}[/]" if outcome.code else "[dim]-[/]"
        table.add_row(escape(step.title), escape(step.expected), escape(outcome.text), code, mark)
    if len(seen) < len(steps):
        table.add_row(Spinner("dots", text=escape(steps[len(seen)].title)), "", "", "", "")
    return table


def _serve_on(world: World, console: Console) -> None:
    """Enrol a device for the reader, print what to try, and wait for Ctrl-C."""
    _, token = world.add_device("yours", "alice")
    folder = world.folder / "yours"
    _, files = client.enrol(world.port, world.pki.root, token, folder)
    if files is None:
        raise WorldFailed("The gateway did not enrol a second device.")
    header = folder / "alice.header"
    write_file(header, f"Authorization: Bearer {world.token('alice')}\n".encode(), 0o600)
    console.print("\nStill serving; [bold]Ctrl-C[/] ends it and leaves nothing behind.")
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="cyan", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in (
        ("the directory", f"https://{DIRECTORY}:{world.port}/people"),
        ("open to all", f"https://{PORTAL}:{world.port}/headers"),
        ("the provider", world.provider_url),
        ("metrics", f"http://127.0.0.1:{world.admin_port}/metrics"),
        ("the record", str(world.folder / "state" / "decisions.jsonl")),
        ("edit these", f"{world.config}, {world.policies / 'gateway'}"),
    ):
        facts.add_row(name, escape(value))
    console.print(facts)
    console.print("\nTry this, then leave out a line:\n")
    lines = (
        f"curl --resolve {DIRECTORY}:{world.port}:{client.ADDRESS}",
        f"--cacert {world.pki.root}",
        f"--cert {files.certificate} --key {files.key}",
        f"-H @{header}",
        f"https://{DIRECTORY}:{world.port}/people",
    )
    console.print(" \\\n  ".join(lines), markup=False, soft_wrap=True)
    while True:
        signal.pause()


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP leave through every `finally`, as Ctrl-C does."""

    def leave(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
