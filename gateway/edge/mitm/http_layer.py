"""The HTTP layer of one client connection: mitmproxy's, with our codecs, limits and upstream connections."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Any

from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestHeaders, RequestProtocolError, ResponseProtocolError

from gateway.edge.mitm.commands import Interrupt, Release
from gateway.edge.mitm.http1 import ClientHttp1, UpstreamHttp1
from gateway.edge.mitm.http2 import ClientHttp2, FramedHttp2, UpstreamHttp2
from gateway.edge.mitm.turn_budget import Turn

if TYPE_CHECKING:
    from gateway.edge.mitm.upstream_pool import UpstreamPool

Commands = layer.CommandGenerator[Any]
DISCARD_BYTES = 1 << 16
_QUEUED_BYTES = 1 << 18
_QUEUED_EVENTS = 1 << 7
_NO_BODY_STATUS = frozenset({204, 304})


class DialUpstream(mitm.GetHttpConnection):
    """A wish for a connection to one address of one upstream, for `person` (issuer and subject; empty: nobody)."""

    def __init__(
        self, upstream: UpstreamPool, address: tuple[str, int], person: tuple[str, ...], *, fresh: bool
    ) -> None:
        super().__init__(address, False, None)
        self.upstream = upstream
        self.person = person
        self.fresh = fresh

    __hash__ = mitm.GetHttpConnection.__hash__

    def connection_spec_matches(self, connection: Connection) -> bool:
        """Whether an open connection serves this wish."""
        return (
            getattr(connection, "upstream", None) is self.upstream
            and getattr(connection, "address", None) == self.address
            and (not getattr(connection, "bound", False) or getattr(connection, "person", None) == self.person)
        )


# ---- the layer above both ----


class UpstreamLayer(mitm.HttpClient):
    """Opens a connection and picks its protocol."""

    def _handle_event(self, event: events.Event) -> Commands:
        error = None if self.context.server.connected else (yield commands.OpenConnection(self.context.server))
        if not error:
            kind = UpstreamHttp2 if self.context.server.alpn == b"h2" else UpstreamHttp1
            self.child_layer = kind(self.context)
            self.handle_event = self._handle_event = self.child_layer.handle_event  # type: ignore[method-assign]
            yield from self.child_layer.handle_event(event)
        yield mitm.RegisterHttpConnection(self.context.server, error)


class GatewayHttpLayer(mitm.HttpLayer):
    """All requests of one client connection."""

    def __init__(self, context: Context, stream_class: type[Any], streams: int, head_bytes: int) -> None:
        super().__init__(context, mitm.HTTPMode.transparent)
        self.stream_class = stream_class
        self.streams_limit, self.head_bytes = streams, head_bytes
        self.finished: list[layer.Layer] = []
        # Set by whoever balances the connections: upstreams that do not keep up, and whether memory is short.
        self.congested: frozenset[Connection] = frozenset()
        self.is_full = False

    def handle_event(self, event: events.Event) -> Commands:
        """This layer never blocks (its streams do), so mitmproxy's pause machinery is not needed."""
        return self._handle_event(event)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            fork = self.context.fork()
            self.connections[self.context.client] = (
                ClientHttp2(fork, self.streams_limit, self.head_bytes, self)
                if self.context.client.alpn == b"h2"
                else ClientHttp1(fork, self.head_bytes)
            )
            yield from self.event_to_child(self.client, event)
            return
        if isinstance(event, Interrupt):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                yield from self.event_to_child(stream, event)
                yield from self._stop_waiting(stream)
            elif isinstance(self.client, ClientHttp2):
                cut = ResponseProtocolError(event.stream_id, event.reason, ErrorCode.KILL)
                yield from self.event_to_child(self.client, cut)
            return
        if isinstance(event, Turn) and event.connection not in self.connections:
            return
        yield from super()._handle_event(event)

    @property
    def live(self) -> Sized:
        """The requests that are not over."""
        return self.streams

    def is_stalled(self, stream_id: int) -> bool:
        """Whether a stream's body waits: for its verdict, its upstream, a place there, or for memory."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return False
        server = stream.context.server
        if self.is_full or stream._paused or server in self.congested:  # noqa: SLF001  (mitmproxy's)
            return True
        codec = _leaf(self.connections.get(server))
        return isinstance(codec, UpstreamHttp2) and stream_id in codec.stream_queue

    @property
    def held_back(self) -> bool:
        """Whether a request that waits for its verdict or its upstream has much of its body waiting with it."""
        waiting = [stream._paused_event_queue for stream in self.streams.values()]  # noqa: SLF001  (mitmproxy's)
        for child in self.connections.values():
            if isinstance(codec := _leaf(child), UpstreamHttp2):
                waiting += codec.stream_queue.values()  # type: ignore[arg-type]
        for queue in waiting:
            if queue and (
                len(queue) > _QUEUED_EVENTS or sum(len(getattr(event, "data", b"")) for event in queue) > _QUEUED_BYTES
            ):
                return True
        return False

    @property
    def client(self) -> ClientHttp1 | ClientHttp2:
        """The client's protocol layer."""
        return self.connections[self.context.client]  # type: ignore[return-value]

    def event_to_child(self, child: layer.Layer, event: events.Event) -> Commands:
        """What mitmproxy's own does, for the commands that can occur here, the frequent ones first."""
        command: Any
        for command in child.handle_event(event):
            kind = type(command)
            if kind is ReceiveHttp:
                inner = command.event
                if type(inner) is RequestHeaders:
                    self.make_stream(inner.stream_id)
                stream = self.streams.get(inner.stream_id)
                if stream is not None:
                    yield from self.event_to_child(stream, inner)
                    if type(inner) is RequestProtocolError:
                        yield from self._stop_waiting(stream)
            elif kind is mitm.SendHttp:
                connection = self.connections.get(command.connection)
                if connection is not None:
                    yield from self.event_to_child(connection, command.event)
            elif kind is commands.SendData:
                yield command
            elif kind is mitm.DropStream:
                if (dropped := self.streams.pop(command.stream_id, None)) is not None:
                    self.finished.append(dropped)
                    for side in (dropped.context.client, dropped.context.server):
                        codec = _leaf(self.connections.get(side))
                        if isinstance(codec, FramedHttp2):
                            codec.finish(command.stream_id)
            else:
                if command.blocking or kind is commands.RequestWakeup:
                    self.command_sources[command] = child
                if kind is DialUpstream:
                    yield from self.get_connection(command)
                elif kind is mitm.RegisterHttpConnection:
                    yield from self.register_connection(command)
                else:
                    if kind is commands.OpenConnection:
                        self.connections[command.connection] = child
                    yield command

    def make_stream(self, stream_id: int) -> None:  # type: ignore[override]
        """A stream of ours for each request."""
        self.streams[stream_id] = self.stream_class(_fork(self.context), stream_id)

    def get_connection(self, event: mitm.GetHttpConnection, *, reuse: bool = True) -> Commands:
        """Use an open connection of this client, or open one (the dialler asks the pool first)."""
        if not isinstance(event, DialUpstream):
            raise TypeError("only an upstream is dialled")
        shared = self.context.client.alpn == b"h2" and not event.upstream.http2
        for connection, child in () if event.fresh or not reuse else list(self.connections.items()):
            if not event.connection_spec_matches(connection) or (shared and not connection.bound):  # type: ignore[attr-defined]
                continue
            if connection in self.waiting_for_establishment and not shared:
                self.waiting_for_establishment[connection].append(event)
                return
            if connection.connected and (event.upstream.http2 or getattr(_leaf(child), "idle", False)):
                stream = self.command_sources.pop(event)
                yield from self.event_to_child(stream, mitm.GetHttpConnectionCompleted(event, (connection, None)))
                return
        context = _fork(self.context)
        context.server = Server(address=event.address)
        context.server.upstream = event.upstream
        context.server.share = shared
        # On HTTP/2 requests overlap, and the connection may become one person's while another's are under way.
        context.server.bound = event.upstream.http2 or event.upstream.settings.connections == "person"
        context.server.person = event.person
        context.server.fresh = event.fresh
        context.server.used = False
        child = UpstreamLayer(context)
        self.connections[context.server] = child
        self.waiting_for_establishment[context.server].append(event)
        yield from self.event_to_child(child, events.Start())

    def _stop_waiting(self, stream: layer.Layer) -> Commands:
        """Let a stream that was cut go on at once, which waits for an upstream connection: it must not get one."""
        wish = stream._paused.command if stream._paused else None  # noqa: SLF001  (mitmproxy's)
        if not isinstance(wish, DialUpstream) or self.command_sources.pop(wish, None) is None:
            return
        for wishes in self.waiting_for_establishment.values():
            wishes[:] = [other for other in wishes if other is not wish]
        yield from self.event_to_child(stream, mitm.GetHttpConnectionCompleted(wish, (None, "cut")))

    def register_connection(self, command: mitm.RegisterHttpConnection) -> Commands:
        """Hand an established connection to who waits for it; one that nobody waits for any more goes to the pool."""
        is_awaited = bool(self.waiting_for_establishment.get(command.connection))
        yield from super().register_connection(command)
        if not is_awaited and not command.err and command.connection.share:  # type: ignore[attr-defined]
            yield Release(command.connection)

    def idle(self, connection: Connection) -> bool:
        """Whether an upstream connection may serve somebody else."""
        is_idle = getattr(_leaf(self.connections.get(connection)), "idle", False)
        return bool(is_idle and not getattr(connection, "bound", False))

    def forget(self, connection: Connection) -> None:
        """Drop what is kept for a connection that is gone."""
        if (child := self.connections.pop(connection, None)) is not None:
            self.finished.append(child)

    def sweep(self) -> None:
        """Let go of what has finished; not before everything that it has said is done."""
        for one in self.finished:
            _let_go(one)
        self.finished.clear()

    def close(self) -> None:
        """Let go of everything: the client is gone."""
        self.finished += (*self.streams.values(), *self.connections.values())
        for kept in (self.streams, self.connections, self.command_sources, self.waiting_for_establishment):
            kept.clear()
        self.sweep()
        self.context.layers.clear()


def _fork(context: Context) -> Context:
    """`context.fork()` without the placeholder server that every fork would make and nobody uses."""
    fork = Context.__new__(Context)
    fork.client, fork.options, fork.server = context.client, context.options, context.server
    fork.layers = context.layers.copy()
    return fork


def _let_go(finished: layer.Layer | None) -> None:
    """Open the rings of a layer, its context and its bound methods: the collector comes by too seldom for them."""
    if finished is not None and (attributes := vars(finished)):
        finished.context.layers.clear()
        child, codec = attributes.get("child_layer"), attributes.get("h2_conn")
        attributes.clear()
        _let_go(child)
        if codec is not None:
            vars(codec).clear()


def _leaf(child: layer.Layer | None) -> layer.Layer | None:
    return getattr(child, "child_layer", child)


def is_bodyless(method: str, status: int) -> bool:
    """Whether an answer has no body whatever its headers say (RFC 9110 section 6.4.1)."""
    return method == "HEAD" or 100 <= status < 200 or status in _NO_BODY_STATUS  # noqa: PLR2004
