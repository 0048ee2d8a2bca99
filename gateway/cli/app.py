"""The command line: `gateway` and `python -m gateway`.

What costs time to import is imported by the command that needs it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from gateway import __version__
from gateway.cli import output
from gateway.cli.decision import decision_app
from gateway.cli.device import device_app
from gateway.cli.node import node_app
from gateway.cli.pki import pki_app
from gateway.cli.policy import policy_app
from gateway.cli.risk import risk_app
from gateway.cli.session import session_app
from gateway.cli.shell import DEFAULT_CONFIG, SETTINGS, Commands, ConfigOption, JsonOption, group
from gateway.cli.start import init, quickstart
from gateway.cli.user import user_app
from gateway.cli.zitadel.commands import zitadel_app
from gateway.operations.errors import ActionFailed

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    context_settings=SETTINGS,
    pretty_exceptions_enable=False,  # a pretty traceback shows local variables
    help="A policy-as-code zero-trust access gateway.",
)
config_app = group("The configuration's schema and its page in the documentation.")
app.command()(quickstart)
app.command()(init)
app.add_typer(pki_app, name="pki")
app.add_typer(device_app, name="device")
app.add_typer(session_app, name="session")
app.add_typer(user_app, name="user")
app.add_typer(decision_app, name="decision")
app.add_typer(policy_app, name="policy")
app.add_typer(risk_app, name="risk")
app.add_typer(node_app, name="node")
app.add_typer(zitadel_app, name="zitadel")
app.add_typer(config_app, name="config")

OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file, not to stdout.")]


def main() -> None:
    """Run the command line."""
    app(prog_name="gateway")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    if version:
        output.say(f"gateway {__version__}")
        raise typer.Exit


@app.command()
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    offline: Annotated[bool, typer.Option("--offline", help="Leave out upstreams, issuers and OPA.")] = False,
    json_wanted: JsonOption = False,
) -> None:
    """Look at the configuration and everything it names; every problem with its line and its fix."""
    from dataclasses import asdict  # noqa: PLC0415

    from gateway.cli.check.report import examine  # noqa: PLC0415

    with output.err.status("configuration") as status:
        report = asyncio.run(examine(config, offline=offline, progress=status.update))
    if json_wanted:
        output.as_json(
            {
                "problems": [asdict(problem) for problem in report.problems],
                "warnings": [asdict(warning) for warning in report.warnings],
            }
        )
    else:
        output.problems(report.problems)
        output.problems(report.warnings, style="yellow", word="warning")
        output.say(f"check: {_count(report.problems, 'problem')}, {_count(report.warnings, 'warning')}")
    if report.problems:
        raise typer.Exit(1)


def _count(found: Sequence[object], what: str) -> str:
    return f"{len(found)} {what}{'' if len(found) == 1 else 's'}"


@app.command()
def serve(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the gateway until SIGTERM; SIGHUP reloads. First it looks at all that `check --offline` looks at."""
    from gateway.cli.check.report import examine  # noqa: PLC0415
    from gateway.server.supervisor import serve as run  # noqa: PLC0415

    report = asyncio.run(examine(config, offline=True))
    output.problems(report.problems)
    if report.problems:
        raise typer.Exit(1)
    output.problems(report.warnings, style="yellow", word="warning")
    raise typer.Exit(run(config))


@app.command()
def demo() -> None:
    """Walk through the real gateway with a real client, in a world of its own."""
    from gateway.demo.command import run  # noqa: PLC0415

    raise typer.Exit(run())


@config_app.command("schema")
def config_schema(out: OutOption = None) -> None:
    """The JSON Schema of gateway.yaml, for editors."""
    from gateway.config import json_schema  # noqa: PLC0415

    _write(json.dumps(json_schema(), indent=2), out)


@config_app.command("docs")
def config_docs(out: OutOption = None) -> None:
    """Every key with its type, default and meaning, as Markdown."""
    from gateway.config import markdown  # noqa: PLC0415

    _write(markdown().rstrip("\n"), out)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        output.say(text)
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ActionFailed(f"{out} cannot be written: {error.strerror}.") from error
    output.note(f"[green]made[/] {escape(str(out))}")
