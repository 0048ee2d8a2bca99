"""What the parts of the edge ask of each other: a stream of its connection, the halves of a stream of the stream."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from mitmproxy.proxy import events, layer
from mitmproxy.proxy.context import Context

from gateway.edge.mitm.commands import Interrupt
from gateway.edge.mitm.exchange import Exchange, Flow
from gateway.edge.mitm.http_layer import GatewayHttpLayer
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.pipeline.headers import Forward
from gateway.replies.replies import Reply

Commands = layer.CommandGenerator[Any]


class ConnectionPort(Protocol):
    """The client connection as its streams see it."""

    http: GatewayHttpLayer
    transport: asyncio.Transport

    @property
    def draining(self) -> bool:
        """Whether this worker takes no further requests on its connections."""

    def opened(self, exchange: Exchange) -> Exchange:
        """A request head has arrived."""

    def closed(self, exchange: Exchange) -> None:
        """A request is over."""

    def buffer(self, exchange: Exchange, size_bytes: int) -> bool:
        """Count bytes of a body that is held in memory; False when this worker holds too many."""

    def unbuffer(self, exchange: Exchange) -> None:
        """The exchange's body is held no longer."""

    def upstream(self, exchange: Exchange, verdict: Forward) -> UpstreamPool:
        """The upstream of a verdict."""

    def upstream_broke(self, exchange: Exchange) -> None:
        """The upstream ended the connection instead of answering."""

    def refuse(self, exchange: Exchange, code: str) -> Reply:
        """A denial from the edge itself."""


class StreamPort(Protocol):
    """A stream as its two halves see it. `client_state` and `server_state` take the next event of each side."""

    stream_id: int
    exchange: Exchange
    flow: Flow
    context: Context
    client_state: Any
    server_state: Any

    @property
    def edge(self) -> ConnectionPort:
        """The connection this stream belongs to."""

    @property
    def is_http2(self) -> bool:
        """Whether the client speaks HTTP/2."""

    def end_if_cut(self) -> Commands:
        """After each wait, before anything is sent: end the exchange if it was cut meanwhile."""

    def begin_response(self) -> None:
        """The request is on its way: take what the upstream sends."""

    def state_done(self, event: events.Event) -> Commands:
        """The state of a side that has sent everything."""

    def state_errored(self, event: events.Event) -> Commands:
        """The state of a side that is not listened to."""

    def reply(self, answer: Reply) -> Commands:
        """Answer in the upstream's place and be done."""

    def refuse(self, reason: str) -> Commands:
        """Answer with a denial from the edge itself and be done."""

    def interrupt(self, event: Interrupt) -> Commands:
        """End the exchange: with an answer when none was begun, else by cutting it."""

    def give_up_upstream(self) -> Commands:
        """Tell the upstream that nobody waits for it any more."""

    def reset(self, code: int) -> Commands:
        """End an HTTP/2 stream whose request is still coming."""

    def drop(self) -> Commands:
        """Forget the stream."""

    def flow_done(self) -> Commands:
        """Both sides are done."""
