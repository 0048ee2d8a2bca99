"""Memory accounting: what one client connection holds at the moment, measured where the bytes are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mitmproxy.proxy import events, layer
from mitmproxy.proxy.layers.websocket import WebsocketLayer

from gateway.edge.mitm.http1 import ClientHttp1, UpstreamHttp1
from gateway.edge.mitm.http2 import ClientHttp2, UpstreamHttp2
from gateway.edge.mitm.memory_ledger import Usage

if TYPE_CHECKING:
    from gateway.edge.mitm.connection import ClientConnection

# An open request with its layers, facts and verdict, measured at 20 to 26 KiB.
REQUEST_BYTES = 24 << 10
# An event that waits in a queue, beside its bytes.
_EVENT_BYTES = 512


def measure_usage(connection: ClientConnection) -> Usage:
    """The bytes that wait on a connection and its upstream connections, in every buffer of ours."""
    http = connection.http
    outbound = connection.transport.get_write_buffer_size()
    inbound = connection.turns.unread_bytes
    client = http.connections.get(connection.client)
    if isinstance(client, ClientHttp1):
        inbound += len(client.buf)
    elif isinstance(client, ClientHttp2):
        inbound += client.unread_bytes
        if client.h2_conn.stream_buffers:
            outbound += sum(client.backlog().values())
    for stream in http.streams.values():
        if queue := stream._paused_event_queue:  # noqa: SLF001  (mitmproxy's)
            inbound += _event_bytes(queue)
        inbound += _message_bytes(getattr(stream, "child_layer", None))
    overhead = 0
    for exchange in connection.exchanges.values():
        overhead += REQUEST_BYTES
        inbound += exchange.buffered_bytes + exchange.head_bytes
    for server, leg in connection.legs.items():
        if leg.usable:
            inbound += leg.transport.get_write_buffer_size()
        codec = getattr(http.connections.get(server), "child_layer", None)
        if isinstance(codec, UpstreamHttp1):
            outbound += len(codec.buf)
        elif isinstance(codec, UpstreamHttp2):
            outbound += codec.unread_bytes
            if codec.h2_conn.stream_buffers:
                inbound += codec.backlog()
            for waiting in codec.stream_queue.values():
                inbound += _event_bytes(waiting)
    return Usage(inbound, outbound, overhead)


def _event_bytes(queue: Iterable[events.Event]) -> int:
    return sum(_EVENT_BYTES + len(getattr(event, "data", b"")) for event in queue)


def _message_bytes(child: layer.Layer | None) -> int:
    """A WebSocket message that is not whole yet, in both directions."""
    if not isinstance(child, WebsocketLayer):
        return 0
    return sum(sum(map(len, side.frame_buf)) for side in (child.client_ws, child.server_ws))
