"""Zitadel's published interface (tests/vectors/zitadel_api.json) as a judge of requests and answers in protojson."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.adapters.http import HttpxClient
from gateway.core.ports.http import HttpAnswer

_VECTOR = Path(__file__).parents[1] / "vectors" / "zitadel_api.json"
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z")
_DURATION = re.compile(r"[0-9]+(\.[0-9]{1,9})?s\Z")


class Interface:
    """Calls, messages and enumerations of the published interface."""

    def __init__(self) -> None:
        document = json.loads(_VECTOR.read_text(encoding="utf-8"))
        self.calls: dict[str, list[str]] = document["calls"]
        self._messages: dict[str, dict[str, str]] = document["messages"]
        self._enums: dict[str, list[str]] = document["enums"]
        self._paths = [(re.compile(re.sub(r"\{[a-z_]+\}", "[^/]+", call) + r"\Z"), call) for call in self.calls]

    def call_of(self, method: str, path: str) -> str | None:
        """The published call that a request is; one without placeholders goes first."""
        fitting = [call for pattern, call in self._paths if pattern.match(f"{method} {path}")]
        return min(fitting, key=lambda call: call.count("{"), default=None)

    def faults_of_exchange(self, method: str, path: str, request: Any, status: int, answer: Any) -> list[str]:
        """What is wrong with a request and its answer by the published interface."""
        call = self.call_of(method, path)
        if call is None:
            return [f"{method} {path}: no such call"]
        faults = list(self._message(self.calls[call][0], request or {}, f"{call} request"))
        if status < 300:
            faults += self._message(self.calls[call][1], answer or {}, f"{call} answer")
        return faults

    def _message(self, name: str, value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where}: no object"
            return
        fields = self._messages[name]
        for member, content in value.items():
            if member not in fields:
                yield f"{where}: {name} has no {member}"
            else:
                yield from self._value(fields[member], content, f"{where}.{member}")

    def _value(self, kind: str, value: Any, where: str) -> Iterator[str]:
        outer, _, inner = kind.partition(":")
        if outer == "list":
            for entry in value if isinstance(value, list) else ():
                yield from self._value(inner, entry, f"{where}[]")
            good = isinstance(value, list)
        elif outer == "map":
            for entry in value.values() if isinstance(value, dict) else ():
                yield from self._value(inner, entry, f"{where}{{}}")
            good = isinstance(value, dict)
        elif outer == "message":
            yield from self._message(inner, value, where)
            good = True
        elif outer == "enum":
            good = value in self._enums[inner]
        else:
            good = _is_plain(outer, value)
        if not good:
            yield f"{where}: {value!r} is no {kind}"


def _is_plain(kind: str, value: Any) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "number":
        return not isinstance(value, bool) and bool(_NUMBER.match(str(value)))
    if kind == "duration":
        return isinstance(value, str) and bool(_DURATION.match(value))
    if kind == "time":
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    return kind == "any" or isinstance(value, str)


@dataclass
class Recorder:
    """A `HttpClient` that goes on to the real one and keeps every JSON exchange."""

    http: HttpxClient
    base: str
    exchanges: list[tuple[str, str, Any, int, Any]] = field(default_factory=list)

    async def send_json(
        self, method: str, url: str, value: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        answer = await self.http.send_json(method, url, value, headers)
        document = json.loads(answer.body or b"{}")
        self.exchanges.append((method, url.removeprefix(self.base), value, answer.status, document))
        return answer

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        return await self.http.get(url, headers)

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        return await self.http.post_form(url, form, headers)

    async def post_bytes(self, url: str, content: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        return await self.http.post_bytes(url, content, headers)

    async def close(self) -> None:
        await self.http.close()
