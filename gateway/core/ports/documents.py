"""Documents: small sealed values with an end, in collections. Every method raises StoreDown when the store is down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Document:
    """A small value under a key; `version` grows with every write. Times are seconds since the epoch."""

    key: str
    value: bytes
    version: int
    expires_at: float


class Documents(Protocol):
    """Small sealed values with an end, in collections: login transactions, sessions, factors, cursors."""

    async def get(self, collection: str, key: str, now: float) -> Document | None:
        """The document, None when it is not there or has ended."""

    async def put(
        self, collection: str, key: str, value: bytes, expires_at: float, *, version: int, group: str = ""
    ) -> bool:
        """Write over what was read: `version` 0 only when nothing is there, n only over version n.

        Answers whether it was written. `group` is what `list` finds it by (a subject, a parent session).
        """

    async def overwrite(self, collection: str, key: str, value: bytes, expires_at: float, *, group: str = "") -> None:
        """Write, whatever is there. Only for a value that follows from the key or an event, and from no document."""

    async def take(self, collection: str, key: str, now: float) -> Document | None:
        """Read and delete in one step: of several callers one gets it."""

    async def delete(self, collection: str, key: str) -> bool:
        """Delete; whether it was there."""

    async def list(self, collection: str, group: str, now: float) -> Sequence[Document]:
        """Every document of a group that has not ended, oldest first."""
