"""`gateway node …`: take this node out of service, and put it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import output
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, group
from gateway.operations.errors import ActionFailed

if TYPE_CHECKING:
    from gateway.node.quarantine import Quarantine

_FIX = "Run this as the user who runs the gateway."
node_app = group("This node: quarantine it, release it.")


@node_app.command("quarantine")
def node_quarantine(
    why: Annotated[str, typer.Option("--why", help="The reason; it is kept beside the flag.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Refuse every request on this node (`node_quarantined`) until it is released; a restart changes nothing.

    Open requests are cut when their turn comes (`limits.rejudge_s`). Other gateways over the same Redis go on.
    """
    flag = _quarantine(config)
    try:
        flag.flag(why)
    except OSError as error:
        raise ActionFailed(f"The flag cannot be set: {error.strerror}.", _FIX) from error
    output.say(f"quarantined: {flag.why()}")


@node_app.command("release")
def node_release(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let this node serve again."""
    flag = _quarantine(config)
    try:
        flag.clear()
    except OSError as error:
        raise ActionFailed(f"The flag cannot be taken away: {error.strerror}.", _FIX) from error
    output.say("in service")


@node_app.command("show")
def node_show(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Whether this node is quarantined, and why."""
    flag = _quarantine(config)
    output.say("in service" if flag.check() is None else f"quarantined: {flag.why() or 'unknown'}")


def _quarantine(config: Path) -> Quarantine:
    from gateway.config import load  # noqa: PLC0415
    from gateway.node.quarantine import Quarantine  # noqa: PLC0415

    return Quarantine(load(config).state)
