"""`gateway risk …`: score a file of sign-ins, and explain what is remembered of a person."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.cli import output
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption, group
from gateway.operations.errors import ActionFailed

risk_app = group("Risk: score a file of sign-ins, see what is remembered of a person.")


@risk_app.command("score")
def risk_score(
    logins: Annotated[Path, typer.Option("--logins", help="A CSV file of sign-ins.", dir_okay=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file, not to stdout.")] = None,
) -> None:
    """Score sign-ins with the gateway's login pattern; answers the same rows with `score` and `terms`.

    Columns: time, user, ip, success; and where they are known country, asn, lat, lon, accuracy_km, user_agent, browser,
    os, device_type. Each row is scored against the successful ones of that user before it. A score below 0 is more like
    that user than like anybody else.
    """
    from gateway.operations import login_file  # noqa: PLC0415

    names = [*login_file.columns(logins), *login_file.ANSWERS]
    bar = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    done = 0
    with Progress(*bar, console=output.err, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("sign-ins", total=None)
        with _written(out) as text:
            writer = csv.DictWriter(text, names, lineterminator="\n")
            writer.writeheader()
            for row in login_file.scored(logins, lambda count: progress.update(task, completed=count)):
                writer.writerow(row)
                done += 1
    output.note(f"[green]scored[/] {done:,} sign-ins" + ("" if out is None else f" in {escape(str(out))}"))


@contextlib.contextmanager
def _written(out: Path | None) -> Iterator[IO[str]]:
    """Where the answer goes: a file appears whole, or not at all."""
    if out is None:
        yield sys.stdout
        return
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="") as text:
            yield text
        beside.replace(out)
    except OSError as error:
        raise ActionFailed(
            f"{out} cannot be written: {error.strerror}.", "Name a file in a folder of yours."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@risk_app.command("explain")
def risk_explain(
    issuer: Annotated[str, typer.Argument(help="The person's issuer, as the configuration names it, or its slug.")],
    subject: Annotated[str, typer.Argument(help="The person's subject at this issuer.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """What is remembered of a person, and the last risk of each session: its terms sum to the score."""
    from gateway.config import load  # noqa: PLC0415
    from gateway.operations import risk_history  # noqa: PLC0415

    loaded = load(config)
    known = {name: one.issuer for one in loaded.issuers for name in (one.issuer, one.slug)}
    if issuer not in known:
        output.note(f"[yellow]warning[/] The configuration names no issuer {escape(issuer)}.")
    explanation = asyncio.run(risk_history.explain(loaded, known.get(issuer, issuer), subject))
    if json_wanted:
        output.as_json(explanation)
        return
    if not explanation["history"]:
        output.say("nothing is remembered of this person")
    for signal, memory in explanation["history"].items():
        _show_memory(signal, memory)
    for session in explanation["sessions"]:
        _show_session(session)


def _show_memory(signal: str, memory: Any) -> None:
    from gateway.risk import login_pattern as logins  # noqa: PLC0415

    if signal == "_":
        output.say(f"remembered since {output.moment(memory.get('since'))}")
        return
    output.say("the pattern of sign-ins" if signal == "login" else signal)
    rows = logins.in_words(memory) if signal == "login" else memory
    for name, value in rows.items() if isinstance(rows, Mapping) else [("", rows)]:
        output.say(f"  {name:<28} {_short(value)}")


def _short(value: Any) -> str:
    """Numbers without their tails, objects as "name value, name value"."""
    if isinstance(value, dict):
        return ", ".join(f"{name or 'unknown'} {_short(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    if value is None:
        return "unknown"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _show_session(session: dict[str, Any]) -> None:
    output.say(f"session {session['id']}, last seen {output.moment(session['last_seen_at'])}")
    last = session["last"]
    if last is not None:
        output.say(f"  {output.moment(last['at'])} {last['service']}: {last['level']}, score {last['score']}")
    for name, value in (last or {}).get("terms", {}).items():
        output.say(f"  {name:<28} {value:+.3f}")
    for term in session["sign_in"]:
        output.say(f"  {term['name']:<28} {term['value']:+.3f}  {term['why']} (at the sign-in)")
