"""`gateway decision ...`: find what a refusal page names, and see what was decided lately."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption, group

decision_app = group("Decisions: find the one that a page names, see the latest.")
_COLUMNS = ("decision", "time", "effect", "reasons", "service", "request", "person", "device")
_LABELS = {
    "time": "when",
    "effect": "answer",
    "service": "service",
    "request": "request",
    "client_ip": "from",
    "person": "person",
    "roles": "roles",
    "client_id": "client",
    "issuer": "issuer",
    "device": "device",
    "session": "session",
    "risk": "risk",
    "obligations": "obligations",
    "reactions": "reactions",
    "detail": "detail",
    "policy": "policy",
}


@decision_app.command("show")
def decision_show(
    decision: Annotated[str, typer.Argument(help="The decision's id, as the refusal page shows it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """One decision: who asked for what, what was known of them, why the answer was this, and what would change it."""
    from gateway.config import load  # noqa: PLC0415
    from gateway.operations import decisions  # noqa: PLC0415

    event = decisions.find(load(config), decision)
    if json_wanted:
        output.as_json(event)
        return
    readable = _readable(event)
    output.facts({label: readable[name] for name, label in _LABELS.items() if readable.get(name)}, json_wanted=False)
    style = "green" if event.get("effect") == "allow" else "yellow"
    for code, text in decisions.explained(event).items():
        output.note(f"[{style}]{escape(code)}[/] {escape(text)}")


@decision_app.command("list")
def decision_list(
    count: Annotated[int, typer.Option("--last", "-n", min=1, help="How many.")] = 20,
    service: Annotated[str, typer.Option(help="Only those of one service.")] = "",
    person: Annotated[str, typer.Option(help="Only those of one person: the subject, or a part of the name.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only what was not allowed.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json_wanted: JsonOption = False,
) -> None:
    """The latest decisions, newest first."""
    from gateway.config import load  # noqa: PLC0415
    from gateway.operations import decisions  # noqa: PLC0415

    events = decisions.latest(load(config), count=count, service=service, person=person, refused=refused)
    entries = events if json_wanted else [_readable(event) for event in events]
    output.rows(_COLUMNS, entries, json_wanted=json_wanted, empty="no such decisions")


def _readable(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event for people: one text for each thing that they look for."""
    terms = ", ".join(f"{name} {value:+g}" for name, value in event.get("risk_terms", {}).items())
    name, subject = event.get("name", ""), event.get("subject", "")
    return {
        **event,
        "time": output.moment(event.get("ts")),
        "effect": " ".join(str(part) for part in (event.get("effect"), event.get("status")) if part),
        "reasons": ", ".join(event.get("reasons", ())),
        "request": f"{event.get('method', '')} https://{event.get('host', '')}{event.get('path', '')}".strip(),
        "person": f"{name} ({subject})" if name and subject else name or subject,
        "roles": ", ".join(event.get("roles", ())),
        "risk": " ".join(filter(None, (f"{event.get('risk', 0):g}", event.get("risk_level", ""), terms))),
        "obligations": ", ".join(event.get("obligations", ())),
        "reactions": ", ".join(event.get("reactions", ())),
    }
