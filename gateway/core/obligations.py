"""The seam of obligation plugins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts


class Obliger(Protocol):
    """An obligation plugin: enforces one kind of obligation. It can only tighten.

    `phases` are those it acts in: "request" (head), "response" (head), "body" (a whole response body, buffered).
    """

    kind: str
    phases: frozenset[str]

    def parse(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The validated parameters. Raises ValueError when the policy's answer does not fit."""

    def request(self, headers: list[tuple[str, str]], params: Mapping[str, Any], facts: RequestFacts) -> Refusal | None:
        """Change the headers that go upstream in place, or refuse."""

    def response(self, headers: list[tuple[str, str]], params: Mapping[str, Any]) -> None:
        """Change the response's headers in place."""

    def body(self, content_type: str, body: bytes, params: Mapping[str, Any]) -> bytes:
        """The body to send instead. Raising drops the upstream's body."""
