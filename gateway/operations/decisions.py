"""The record of decisions, read by an operator: the newest lines first, over every file that rotation has left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from gateway.config import Config
from gateway.core.reasons import reason
from gateway.operations.errors import ActionFailed

_BLOCK = 1 << 16

type Event = Mapping[str, Any]


def find(config: Config, decision_id: str) -> Event:
    """The event of a decision, by its id as a refusal page shows it. Raises ActionFailed."""
    wanted = decision_id.strip()
    if not wanted:
        raise ActionFailed(
            "No decision is named.", "Copy the decision's id from the page or the X-Gateway-Decision field."
        )
    for event in _newest_first(config):
        if event.get("decision") == wanted:
            return event
    raise ActionFailed(
        f"There is no decision {wanted} in {config.record.file}.",
        "A service on the user plane leaves no record; another gateway has a record of its own.",
    )


def latest(
    config: Config, *, count: int, service: str = "", person: str = "", refused: bool = False
) -> Sequence[Event]:
    """The last decisions, newest first: of a service, of a person (subject or part of the name), refusals alone."""
    events = (event for event in _newest_first(config) if "decision" in event)
    wanted = (
        event
        for event in events
        if (not service or event.get("service") == service)
        and (not person or person == event.get("subject") or person.lower() in str(event.get("name", "")).lower())
        and (not refused or event.get("effect") != "allow")
    )
    return list(islice(wanted, count))


def explained(event: Event) -> Mapping[str, str]:
    """By reason code: what it means and what would have changed the answer."""
    return {code: " ".join(filter(None, (reason(code).what, reason(code).fix))) for code in event.get("reasons", ())}


def _newest_first(config: Config) -> Iterator[Event]:
    path = config.record.file
    try:
        rotated = [file for file in path.parent.glob(f"{path.stem}*{path.suffix}*") if file.is_file()]
        for file in sorted(rotated, key=lambda file: file.stat().st_mtime, reverse=True):
            yield from _events(file)
    except OSError as error:
        raise ActionFailed(f"{path} cannot be read: {error.strerror or error}.") from error


def _events(file: Path) -> Iterator[Event]:
    for line in _lines_backwards(file):
        try:
            event = json.loads(line)
        except ValueError:  # a line that was cut off by a full disk
            continue
        if isinstance(event, dict):
            yield event


def _lines_backwards(file: Path) -> Iterator[bytes]:
    """The lines of a file, the last one first, without reading more of it than is asked for."""
    with file.open("rb") as source:
        position, rest = source.seek(0, 2), b""
        while position:
            size = min(_BLOCK, position)
            position -= size
            source.seek(position)
            first, *lines = (source.read(size) + rest).split(b"\n")
            yield from (line for line in reversed(lines) if line)
            rest = first
        if rest:
            yield rest
