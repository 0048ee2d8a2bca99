"""The command line: `gateway` and `python -m gateway`. Exit codes: 0 done, 1 problems, 2 wrong usage.

Whatever costs time to import is imported by the command that needs it.
"""

from __future__ import annotations

import asyncio
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperGroup

from gateway import __version__
from gateway.admin import output

DEFAULT_CONFIG = Path("gateway.yaml")
ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="GATEWAY_CONFIG", help="The configuration file.", show_default=True)
]


class Commands(TyperGroup):
    """Turns the expected failures of every command into a message on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        from gateway.admin.actions import ActionFailed
        from gateway.config import ConfigError
        from gateway.core.ports import StoreDown

        try:
            return super().invoke(ctx)
        except ConfigError as error:
            output.problems(error.problems)
        except ActionFailed as error:
            output.fail(str(error), error.fix)
        except StoreDown as error:
            output.fail(f"The gateway's state cannot be used: {error}", "Run this as the user who runs the gateway.")
        raise typer.Exit(1)
