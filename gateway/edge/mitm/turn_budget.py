"""Bounded work between two turns of the event loop: a flood on one connection waits, everybody else is served.

Law: one call into the protocol layers handles at most one unit (a slice of bytes, one request head, a few frames). What
is left waits in line for a later turn, and its sender is not read meanwhile. The line goes round the clients, then
round the connections of each.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from typing import Protocol

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events

SLICE_BYTES = 1 << 14
_AT_ONCE_S = 0.002
_RUN_S = 0.004


class Later(commands.ConnectionCommand):
    """A codec has more input than one turn may handle: give it a `Turn` when others had theirs."""


class Turn(events.ConnectionEvent):
    """A codec may go on with the input that it holds."""


class TurnTaker(Protocol):
    """Something that has work in units."""

    @property
    def client_key(self) -> str:
        """Whose work it is: clients share the worker evenly, however many connections each has."""

    def take_turn(self) -> bool:
        """Do one unit; whether more is ready."""


class TurnScheduler:
    """The line of one worker. Each run takes some milliseconds, then the event loop looks after everything else."""

    def __init__(self) -> None:
        self._lines: dict[str, collections.deque[TurnTaker]] = {}
        self._waiting: set[TurnTaker] = set()
        self._running = False

    def enqueue(self, taker: TurnTaker) -> None:
        """Line up, once."""
        if taker in self._waiting:
            return
        self._waiting.add(taker)
        self._lines.setdefault(taker.client_key, collections.deque()).append(taker)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        until = time.monotonic() + _RUN_S
        while self._lines:
            client_key = next(iter(self._lines))
            line = self._lines.pop(client_key)
            taker = line.popleft()
            self._waiting.discard(taker)
            if line:
                self._lines[client_key] = line
            if taker.take_turn():
                self.enqueue(taker)
            if time.monotonic() >= until:
                break
        self._running = bool(self._lines)
        if self._running:
            asyncio.get_running_loop().call_soon(self._run)


def _ignore(_: events.Event) -> None:
    """A connection that is gone takes nothing."""


class ConnectionTurns:
    """What waits on one client connection: bytes of the client, and codecs of both sides that hold more input.

    `feed` hands an event to the protocol layers. `blocked` are connections whose receivers do not keep up: their input
    waits whatever the loop's load.
    """

    def __init__(self, scheduler: TurnScheduler, client_key: str, feed: Callable[[events.Event], None]) -> None:
        self.client_key = client_key
        self._scheduler = scheduler
        self._feed = feed
        self._unread: dict[Connection, memoryview] = {}
        self._later: dict[Connection, None] = {}
        self._ends: dict[Connection, Callable[[], None]] = {}
        self._blocked: frozenset[Connection] = frozenset()

    def receive(self, connection: Connection, data: bytes) -> None:
        """Feed what has arrived, as far as this turn goes."""
        if len(data) <= SLICE_BYTES and connection not in self._blocked and not self.is_busy(connection):
            self._feed(events.DataReceived(connection, data))
            return
        before = self._unread.get(connection, b"")
        self._unread[connection] = memoryview(bytes(before) + data if before else data)
        until = time.monotonic() + _AT_ONCE_S
        while self._ready(connection) and connection not in self._later and time.monotonic() < until:
            self._slice(connection)
        self._line_up()

    def later(self, connection: Connection) -> None:
        """A codec holds more input than one turn may handle."""
        self._later[connection] = None
        self._line_up()

    def at_end(self, connection: Connection, ended: Callable[[], None]) -> bool:
        """Call `ended` when the input of a connection that has ended is handled; False when nothing waits."""
        if not self.is_busy(connection):
            return False
        self._ends[connection] = ended
        return True

    def is_busy(self, connection: Connection) -> bool:
        """Whether input of a connection waits for a later turn, so that no more of it should be read."""
        return connection in self._later or connection in self._unread

    @property
    def unread_bytes(self) -> int:
        """How much input waits for a later turn."""
        return sum(map(len, self._unread.values()))

    def block(self, blocked: frozenset[Connection]) -> None:
        """Set whose input waits for its receivers."""
        if blocked != self._blocked:
            self._blocked = blocked
            self._line_up()

    def forget(self, connection: Connection) -> None:
        """Drop the input of a connection that is over."""
        self._unread.pop(connection, None)
        self._later.pop(connection, None)
        self._ends.pop(connection, None)

    def close(self) -> None:
        """Drop everything: the client is gone."""
        self._feed = _ignore
        self._unread.clear()
        self._later.clear()
        self._ends.clear()

    def take_turn(self) -> bool:
        """Handle one unit of one connection; the next turn is another connection's."""
        connection = next((item for item in (*self._later, *self._unread) if self._ready(item)), None)
        if connection is None:
            return False
        if connection in self._later:
            del self._later[connection]
            self._feed(Turn(connection))
        else:
            self._slice(connection)
        if not self.is_busy(connection) and (ended := self._ends.pop(connection, None)) is not None:
            ended()
        return self._any_ready()

    def _slice(self, connection: Connection) -> None:
        data = self._unread.pop(connection)
        if len(data) > SLICE_BYTES:
            self._unread[connection] = data[SLICE_BYTES:]
        self._feed(events.DataReceived(connection, bytes(data[:SLICE_BYTES])))

    def _ready(self, connection: Connection) -> bool:
        return connection not in self._blocked and self.is_busy(connection)

    def _any_ready(self) -> bool:
        return any(self._ready(connection) for connection in (*self._later, *self._unread))

    def _line_up(self) -> None:
        if self._any_ready():
            self._scheduler.enqueue(self)
