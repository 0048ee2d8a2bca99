"""What `gateway policy eval` and `explain` decide about: an input file, a case, or a recorded decision by its id."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.operations.errors import ActionFailed

if TYPE_CHECKING:
    from gateway.config import Config

SubjectArgument = Annotated[
    str, typer.Argument(metavar="INPUT", help="A JSON file (an input or a case), - for stdin, or a decision's id.")
]
# A record holds some members of these.
_IN_PART = {(), ("request",), ("device",), ("identity",), ("session",), ("client",)}
_LIMIT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Subject:
    """An input document. `services` are those that a case brings; `event` is the recorded decision, where it is one."""

    document: Mapping[str, Any]
    services: Mapping[str, Any] | None = None
    event: Mapping[str, Any] | None = None

    def missing(self, reads: Sequence[Sequence[str]]) -> list[str]:
        """What the policies read and the record of a decision does not hold."""
        if self.event is None:
            return []
        whole = [".".join(("input", *path)) for path in reads if not self._holds(path)]
        in_part = [".".join(("input", *path)) for path in reads if self._holds(path) and tuple(path) in _IN_PART]
        return [*whole, *(f"{name} (in part)" for name in in_part if self.document.get(name[6:], {}) is not None)]

    def _holds(self, path: Sequence[str]) -> bool:
        value: object = self.document
        for name in path:
            if value is None:
                return True
            if not isinstance(value, Mapping) or name not in value:
                return False
            value = value[name]
        return True


def read_subject(text: str, config: Config) -> Subject:
    """Read it. Raises ActionFailed."""
    if text != "-" and not Path(text).is_file():
        from gateway.operations import decisions  # noqa: PLC0415
        from gateway.operations.recorded_input import recorded_input  # noqa: PLC0415

        if text.endswith(".json"):
            raise ActionFailed(f"There is no file {text}.")
        event = decisions.find(config, text)
        return Subject(recorded_input(event, config), event=event)
    try:
        raw = sys.stdin.buffer.read(_LIMIT_BYTES + 1) if text == "-" else Path(text).read_bytes()
        if len(raw) > _LIMIT_BYTES:
            raise ActionFailed(f"The input is larger than {_LIMIT_BYTES} bytes.")
        value = json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ActionFailed(
            f"The input cannot be read: {error}.", "Give a JSON object, as input.schema.json has it."
        ) from error
    if not isinstance(value, dict):
        raise ActionFailed("The input is no JSON object.", "Give a JSON object, as input.schema.json has it.")
    if isinstance(value.get("input"), dict):
        return Subject(value["input"], value.get("services"))
    return Subject(value)


def show_missing(subject: Subject, reads: Sequence[Sequence[str]]) -> None:
    """Say what a record does not hold: the answer may be another one than it was."""
    if missing := subject.missing(reads):
        output.note(f"[yellow]warning[/] the record lacks what the policies read: {escape(', '.join(missing))}")
