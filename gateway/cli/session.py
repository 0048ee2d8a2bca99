"""`gateway session ...`: thin over `gateway.operations.sessions`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output
from gateway.cli.records import entry_of
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption, WhyOption, group, load_config

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.core.ports.stores import SessionRecord

session_app = group("Sessions: look at them, end them.")

WantedSession = Annotated[str, typer.Argument(help="The session's id, or the start of it.")]


@session_app.command("list")
def session_list(
    subject: Annotated[str | None, typer.Option(help="Only those of one subject.")] = None,
    device: Annotated[str | None, typer.Option(help="Only those on the device with this id.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """Sessions that have not expired, newest first."""
    from gateway.operations import sessions  # noqa: PLC0415

    loaded = load_config(config)
    records = [
        record
        for record in asyncio.run(sessions.list_sessions(loaded, subject))
        if device is None or record.device_id == device
    ]
    entries = _with_bindings(loaded, records, json_wanted=json_wanted)
    columns = ("id", "identity", "device_id", "bound_by", "created", "last_seen", "status")
    output.rows(columns, entries, json_wanted=json_wanted, empty="no sessions")


@session_app.command("show")
def session_show(
    session: WantedSession, config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False
) -> None:
    """One session."""
    from gateway.operations import sessions  # noqa: PLC0415

    loaded = load_config(config)
    record = asyncio.run(sessions.find_session(loaded, session))
    output.facts(_with_bindings(loaded, [record], json_wanted=json_wanted)[0], json_wanted=json_wanted)


@session_app.command("revoke")
def session_revoke(
    session: WantedSession, why: WhyOption = "by the operator", config: ConfigOption = DEFAULT_CONFIG
) -> None:
    """End a session: at its next request, and on open connections."""
    from gateway.operations import sessions  # noqa: PLC0415

    record = asyncio.run(sessions.revoke_session(load_config(config), session, why))
    output.say(f"session {record.id} of {record.identity or record.subject} is revoked")


def _with_bindings(config: Config, records: Sequence[SessionRecord], *, json_wanted: bool) -> list[dict[str, Any]]:
    """The records with what they are tied to; for people "token" where each token of a program says it anew."""
    from gateway.operations import sessions  # noqa: PLC0415

    bindings = asyncio.run(sessions.bindings(config, records))
    entries = []
    for record in records:
        bound: object = bindings[record.id]
        if not json_wanted:
            bound = "token" if bindings[record.id] is None else ", ".join(bindings[record.id] or ["nothing"])
        entries.append(entry_of(record, json_wanted=json_wanted) | {"bound_by": bound})
    return entries
