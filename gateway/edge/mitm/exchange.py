"""One HTTP exchange (RFC 9110 section 3.4) as the edge knows it, and the flow that mitmproxy's layers ask for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from mitmproxy import http
from mitmproxy.proxy import events
from mitmproxy.websocket import WebSocketData

from gateway.edge.mitm.commands import Interrupt
from gateway.edge.mitm.generation import Generation
from gateway.pipeline.verdicts import Verdict


class EventPump(Protocol):
    """The client connection as an exchange sees it."""

    def pump(self, event: events.Event) -> None:
        """Feed one event to the layers."""


@dataclass(slots=True, eq=False)
class Exchange:
    """What the edge knows of one request while it lives. Times are `time.monotonic()` seconds.

    `used_at`: when somebody last used it. A page that is left open with a WebSocket or an event stream is not used by
    what the service sends on it (`is_feed`), a download is. `buffered_bytes`: of bodies that are held in memory.
    `head_bytes`: of the request's head. `connection` is None once it is over.
    """

    stream_id: int
    request: http.Request
    has_body: bool
    generation: Generation = None  # type: ignore[assignment]
    verdict: Verdict | None = None
    body: bytearray = field(default_factory=bytearray)
    buffered_bytes: int = 0
    head_bytes: int = 0
    received: int = 0
    sent: int = 0
    status: int = 0
    started: float = field(default_factory=time.monotonic)
    waiting_since: float | None = None
    progress_at: float = field(default_factory=time.monotonic)
    judged_at: float = field(default_factory=time.monotonic)
    used_at: float = field(default_factory=time.monotonic)
    is_feed: bool = False
    doubt_since: float | None = None
    over: bool = False
    connection: EventPump | None = None

    def cut(self, reason: str) -> None:
        """End it: with a denial when no response was begun, else by cutting it."""
        if self.connection is not None:
            self.connection.pump(Interrupt(self.stream_id, reason))


class Flow:
    """What mitmproxy's layers ask of a flow; its own costs an id and a dozen attributes that nobody reads here."""

    __slots__ = ("error", "exchange", "live", "request", "response", "server_conn", "websocket")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.request = exchange.request
        self.response: http.Response | None = None
        self.websocket: WebSocketData | None = None
        self.error = None
        self.live = True
        self.server_conn: Any = None
