"""Memory accounting: bytes that a worker holds for its clients, by connection and by client network.

Law: back-pressure first, then an end. Over half of a limit a client that has more than its share is read no further;
over the limit its largest connection ends. Nobody else pays for it.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# Below this nothing is held back: it is what a connection needs to go on at all.
LOW_BYTES = 1 << 16
_FIT = 0.75


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Bytes that may be held: for one connection, for all of one client, by the whole worker."""

    connection: int
    client: int
    worker: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes that one connection holds. `inbound` came from the client, `outbound` waits for it.

    `overhead` is what its open requests cost beside their bytes. It counts for connection and client, not for the
    worker: many people with an open page each are no flood.
    """

    inbound: int = 0
    outbound: int = 0
    overhead: int = 0

    @property
    def content(self) -> int:
        """What counts for the worker."""
        return self.inbound + self.outbound

    @property
    def total(self) -> int:
        """What counts for the client."""
        return self.inbound + self.outbound + self.overhead


IDLE = Usage()


class MemoryHolder(Protocol):
    """A client connection."""

    @property
    def client_key(self) -> str:
        """Whose connection it is."""

    def end_for_memory(self) -> None:
        """Cut it at once and let go of what it holds."""


class MemoryLedger:
    """What the connections of one worker hold. `changed` is told by how much the worker's sum has changed."""

    def __init__(self, limits: Callable[[], MemoryLimits], changed: Callable[[int], None]) -> None:
        self._limits = limits
        self._changed = changed
        self._usage: dict[MemoryHolder, Usage] = {}
        self._clients: dict[str, set[MemoryHolder]] = {}
        self._totals: collections.Counter[str] = collections.Counter()
        self.content = 0

    def usage(self, holder: MemoryHolder) -> Usage:
        """What a connection was last seen to hold."""
        return self._usage.get(holder, IDLE)

    def note(self, holder: MemoryHolder, usage: Usage) -> None:
        """A connection was measured; whoever is over a limit ends."""
        self._set(holder, usage)
        limits = self._limits()
        if usage.total > limits.connection:
            self._end(holder)
        while self._totals[holder.client_key] > limits.client:
            self._end(self._largest_of(holder.client_key))
        while self.content > limits.worker:
            self._end(self._largest_of(self._largest_client()))

    def fits(self, holder: MemoryHolder, size: int) -> bool:
        """Whether a connection may hold `size` bytes more of a body that has to wait.

        A quarter of each limit stays free, so that a refusal comes before an end. For the worker's sake others that
        hold more end first.
        """
        limits = self._limits()
        client = holder.client_key
        if (
            self.usage(holder).total + size > limits.connection * _FIT
            or self._totals[client] + size > limits.client * _FIT
        ):
            return False
        while self.content + size > limits.worker * _FIT:
            largest = self._largest_client()
            if largest in {client, ""} or self._totals[largest] <= self._totals[client] + size:
                return False
            self._end(self._largest_of(largest))
        return True

    def is_tight(self, holder: MemoryHolder) -> bool:
        """Whether a connection should be read no further.

        The largest of each client goes on: it ends or it is done, and makes room for the next.
        """
        if self.usage(holder).total <= LOW_BYTES:
            return False
        limits, total = self._limits(), self._totals[holder.client_key]
        over_share = self.content > limits.worker // 2 and total > limits.worker // (2 * len(self._totals))
        if total <= limits.client // 2 and not over_share:
            return False
        return self._largest_of(holder.client_key) is not holder

    def forget(self, holder: MemoryHolder) -> None:
        """A connection is over."""
        self._set(holder, IDLE)

    def _set(self, holder: MemoryHolder, usage: Usage) -> None:
        before, client = self._usage.get(holder, IDLE), holder.client_key
        if usage is IDLE or not usage.total:
            self._usage.pop(holder, None)
            holders = self._clients.get(client)
            if holders is not None:
                holders.discard(holder)
                if not holders:
                    del self._clients[client]
        else:
            self._usage[holder] = usage
            self._clients.setdefault(client, set()).add(holder)
        self._totals[client] += usage.total - before.total
        if not self._totals[client]:
            del self._totals[client]
        if change := usage.content - before.content:
            self.content += change
            self._changed(change)

    def _largest_client(self) -> str:
        return max(self._totals, key=self._totals.__getitem__, default="")

    def _largest_of(self, client: str) -> MemoryHolder:
        return max(self._clients[client], key=lambda holder: self._usage[holder].total)

    def _end(self, holder: MemoryHolder) -> None:
        # It is told once, and what it holds is on its way out.
        self._set(holder, IDLE)
        holder.end_for_memory()
