"""What every command shares: its options, and how an expected failure ends it.

Exit codes: 0 done, 1 problems, 2 wrong usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.cli import output
from gateway.operations.errors import ActionFailed

if TYPE_CHECKING:
    from gateway.config import Config

_STATE_FIX = "Run this as the user who runs the gateway; `gateway check` looks at what the state needs."
DEFAULT_CONFIG = Path("gateway.yaml")
ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="GATEWAY_CONFIG", help="The configuration file.", dir_okay=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, for the record.")]


SETTINGS = {"help_option_names": ["-h", "--help"]}


class Commands(TyperGroup):
    """Turns the expected failures of every command into a message on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        from gateway.config import ConfigError  # noqa: PLC0415  (help needs no configuration)
        from gateway.core.ports.stores import StoreDown  # noqa: PLC0415

        try:
            return super().invoke(ctx)
        except ConfigError as error:
            output.problems(error.problems)
        except ActionFailed as error:
            output.fail(str(error), error.fix)
        except StoreDown as error:
            output.fail(f"The gateway's state cannot be used: {error}.", _STATE_FIX)
        raise typer.Exit(1)


def group(text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(help=text, no_args_is_help=True, add_completion=False, context_settings=SETTINGS)


def load_config(path: Path) -> Config:
    """The configuration in a file. Raises ConfigError."""
    from gateway.config import load  # noqa: PLC0415  (help needs no configuration)

    return load(path)
