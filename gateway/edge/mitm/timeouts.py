"""Timeouts of a client connection: handshake, head, body, response, idleness, and a side that does not read."""

from __future__ import annotations

import asyncio
from typing import Protocol

from mitmproxy.connection import Client
from mitmproxy.proxy import events

from gateway.config import Limits
from gateway.edge.mitm.commands import Interrupt
from gateway.edge.mitm.exchange import Exchange
from gateway.edge.mitm.http1 import ClientHttp1
from gateway.edge.mitm.http2 import ClientHttp2
from gateway.edge.mitm.http_layer import GatewayHttpLayer
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.pipeline.headers import Forward
from gateway.pipeline.verdicts import InteractionRequired, LocalRequest

_LINGER_S = 2.0
_SWITCHING = 101


class Uploads(Protocol):
    """The upstream connections of a client connection."""

    uploads_wait: bool
    input_waits: bool


class TimedConnection(Protocol):
    """A client connection as its timeouts see it. Times are `time.monotonic()` seconds."""

    client: Client
    http: GatewayHttpLayer
    transport: asyncio.Transport
    exchanges: dict[int, Exchange]
    opened_at: float
    active_at: float
    established: bool
    closing_since: float | None
    paused_since: float | None
    head_since: float | None

    @property
    def limits(self) -> Limits:
        """The current limits."""

    @property
    def legs(self) -> Uploads:
        """The upstream connections."""

    @property
    def draining(self) -> bool:
        """Whether this worker takes no further requests on its connections."""

    def pump(self, event: events.Event) -> None:
        """Feed one event to the layers."""

    def upstream(self, exchange: Exchange, verdict: Forward) -> UpstreamPool:
        """The upstream of a verdict."""

    def goodbye(self) -> None:
        """Close an idle connection the way its protocol wants it."""

    def abort_all(self) -> None:
        """Cut it and its upstream connections."""


def check_timeouts(connection: TimedConnection, now: float) -> None:
    """End what takes too long. Called twice a second."""
    limits = connection.limits
    if connection.closing_since is not None:
        unsent = connection.transport.get_write_buffer_size() > 0
        if now - connection.closing_since > (limits.stall_s if unsent else _LINGER_S):
            connection.transport.abort()
    elif not connection.established:
        if now - connection.opened_at > limits.handshake_s:
            connection.transport.abort()
    elif connection.paused_since is not None and now - connection.paused_since > limits.stall_s:
        connection.abort_all()
    else:
        if not connection.exchanges:
            _check_idle(connection, now)
        for exchange in list(connection.exchanges.values()):
            _check_exchange(connection, exchange, now)
        client = connection.http.connections.get(connection.client)
        if isinstance(client, ClientHttp2):
            client.forgive()
            _check_frames(connection, client, now)
            for stream_id in client.stuck(now, limits.stall_s):
                connection.pump(Interrupt(stream_id, "request_timeout"))


def _check_idle(connection: TimedConnection, now: float) -> None:
    limits = connection.limits
    client = connection.http.connections.get(connection.client)
    if isinstance(client, ClientHttp1) and client.mid_head and not connection.legs.input_waits:
        connection.head_since = connection.head_since or now
        if now - connection.head_since > limits.header_s:
            connection.transport.abort()
    elif now - connection.active_at > limits.idle_s or connection.draining:
        connection.goodbye()


def _check_frames(connection: TimedConnection, client: ClientHttp2, now: float) -> None:
    """Cut a connection that is held by a header block without end, or by a frame without a request."""
    since = client.frames.incomplete_since
    if since is None or connection.legs.input_waits or now - since <= connection.limits.header_s:
        return
    if client.frames.is_in_block or not connection.exchanges:
        connection.abort_all()


def _check_exchange(connection: TimedConnection, exchange: Exchange, now: float) -> None:
    verdict, limits = exchange.verdict, connection.limits
    if isinstance(verdict, Forward) and exchange.status != _SWITCHING:
        wait_s = connection.upstream(exchange, verdict).settings.response_timeout_s
        if exchange.has_body and connection.legs.uploads_wait:
            if now - exchange.progress_at > wait_s:
                connection.pump(Interrupt(exchange.stream_id, "upstream_timeout"))
        elif exchange.has_body and verdict.facts.protocol != "grpc":
            if now - exchange.progress_at > limits.stall_s:
                connection.pump(Interrupt(exchange.stream_id, "request_timeout"))
        elif exchange.waiting_since is not None and not exchange.has_body and now - exchange.waiting_since > wait_s:
            connection.pump(Interrupt(exchange.stream_id, "upstream_timeout"))
    elif isinstance(verdict, LocalRequest | InteractionRequired) and now - exchange.started > limits.header_s:
        connection.abort_all()
