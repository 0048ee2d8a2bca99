"""WebSocket frames (RFC 6455) on a stream that switched protocols: their bound, and how a connection is closed."""

from __future__ import annotations

from typing import Any

from mitmproxy.connection import Connection
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http import _events as http_events
from mitmproxy.proxy.layers.websocket import WebsocketLayer
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection

from gateway.edge.mitm.websocket_frames import join_fragments

POLICY_VIOLATION, MESSAGE_TOO_BIG = 1008, 1009
_MESSAGE_BYTES = 16 << 20


def has_huge_message(child: layer.Layer | None) -> bool:
    """Whether a message that is under way is longer than any may be; its fragments are joined where they are many."""
    sides = (child.client_ws, child.server_ws) if isinstance(child, WebsocketLayer) else ()
    for side in sides:
        join_fragments(side.frame_buf)
    return any(sum(map(len, side.frame_buf)) > _MESSAGE_BYTES for side in sides)


def close_frames(
    stream_id: int, child: WebsocketLayer, client: Connection, server: Connection, code: int, reason: str
) -> layer.CommandGenerator[Any]:
    """Send a Close frame (section 7.4) to each side that is open."""
    close = CloseConnection(code=code, reason=reason)
    for side, wrap, connection in (
        (child.client_ws, http_events.ResponseData, client),
        (child.server_ws, http_events.RequestData, server),
    ):
        if side.state is ConnectionState.OPEN:
            yield mitm.SendHttp(wrap(stream_id, side.send(close)), connection)
