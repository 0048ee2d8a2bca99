"""HTTP requests to other servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Unreachable(Exception):
    """A server gave no usable HTTP answer: no connection, too slow, too large, not HTTP. The text holds no secret."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole HTTP answer. Header names are lower case; of several equal ones the values are joined with a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient(Protocol):
    """Asks one kind of server. Bounded in time and size, follows no redirect, keeps no cookie."""

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """The answer, whatever its status. Raises `Unreachable`."""

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """The answer to a form (application/x-www-form-urlencoded), whatever its status. Raises `Unreachable`."""

    async def send_json(
        self, method: str, url: str, value: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """The answer to a JSON body, None for no body, whatever its status. Raises `Unreachable`."""

    async def post_bytes(self, url: str, content: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """The answer to a body as it is, whatever its status. Raises `Unreachable`."""

    async def close(self) -> None:
        """Close the connections."""
