"""The protocol layers: mitmproxy's HTTP/1, HTTP/2 and stream layers, made strict, bounded and streaming.

mitmproxy parses and frames; what differs from its own proxy is stated here and nowhere else. A request head that could
be read in two ways becomes a request with a flaw, so that the pipeline answers and records it like every other refusal.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from h11 import EndOfMessage
from h11._readers import ChunkedReader
from mitmproxy import http
from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http import _events as http_events
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Server, make_body_reader
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Server

from gateway.core.reasons import Refusal

if TYPE_CHECKING:
    from gateway.edge.upstreams import Upstream

Commands = layer.CommandGenerator[Any]

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([!-~]+) HTTP/1\.1\Z")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9a-zA-Z]+):[ \t]*([^\r\n\x00]*?)[ \t]*\Z")
_LENGTH = re.compile(rb"(?:0|[1-9][0-9]{0,18})\Z")
_PIPELINE_BYTES = 1 << 20
DISCARD_BYTES = 1 << 16
_NO_BODY_STATUS = frozenset({204, 304})


class Release(commands.ConnectionCommand):
    """Hand an upstream connection that is idle and clean back to the pool."""


class Abort(commands.ConnectionCommand):
    """Cut a connection at once, unsent data included."""


class Linger(commands.ConnectionCommand):
    """Everything is said: half-close, swallow what still arrives for a moment, then close."""


OURS = (Release, Abort, Linger)


class Interrupt(events.Event):
    """Something outside the stream ends it: a time-out, or access that was taken away."""

    def __init__(self, stream_id: int, reason: str) -> None:
        self.stream_id = stream_id
        self.reason = reason


class DialUpstream(mitm.GetHttpConnection):
    """A wish for a connection to one address of one upstream."""

    def __init__(self, upstream: Upstream, address: tuple[str, int]) -> None:
        super().__init__(address, False, None)
        self.upstream = upstream

    __hash__ = mitm.GetHttpConnection.__hash__

    def connection_spec_matches(self, connection: Connection) -> bool:
        """Whether an open connection serves this wish."""
        return getattr(connection, "upstream", None) is self.upstream and connection.address == self.address


# ---- HTTP/1 ----


def _parse_head(head: bytes) -> tuple[http.Request, int | None] | Refusal:
    """One HTTP/1.1 request head (RFC 9112 sections 3, 5 and 6), and the body's length (None = chunked)."""
    lines = head.split(b"\r\n")
    start = _REQUEST_LINE.match(lines[0])
    if start is None:
        return Refusal("malformed_request", "request line")
    fields: list[tuple[bytes, bytes]] = []
    lengths: list[bytes] = []
    encodings: list[bytes] = []
    for line in lines[1:]:
        field = _FIELD.match(line)
        if field is None:
            return Refusal("malformed_request", "header line")
        name, value = field[1], field[2]
        match name.lower():
            case b"content-length":
                lengths.append(value)
            case b"transfer-encoding":
                encodings.append(value.lower())
            case _:
                pass
        fields.append((name, value))
    size: int | None = 0
    if encodings:
        if lengths or encodings != [b"chunked"]:
            return Refusal("malformed_request", "framing")
        size = None
    elif lengths:
        if len(lengths) > 1 or not _LENGTH.match(lengths[0]):
            return Refusal("malformed_request", "framing")
        size = int(lengths[0])
    return _request(start[1], start[2], b"HTTP/1.1", fields), size


def _request(method: bytes, target: bytes, version: bytes, fields: Iterable[tuple[bytes, bytes]]) -> http.Request:
    return http.Request(
        host="",
        port=0,
        method=method,
        scheme=b"https",
        authority=b"",
        path=target,
        http_version=version,
        headers=http.Headers(fields),
        content=None,
        trailers=None,
        timestamp_start=time.time(),
        timestamp_end=None,
    )


class ClientHttp1(Http1Server):
    """The client's side of HTTP/1.1: strict heads, bounded buffers, replies of ours only."""

    def __init__(self, context: Context, head_limit: int) -> None:
        super().__init__(context)
        self.head_limit = head_limit
        self.trailers: http.Headers | None = None

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        """Read one request head; a flawed one becomes a request that carries its flaw, and the last one."""
        if not isinstance(event, events.DataReceived):
            yield commands.CloseConnection(self.conn)
            return
        data = bytes(self.buf.maybe_extract_at_most(len(self.buf)) or b"") if self.buf else b""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) <= self.head_limit and not _bare(data):
                self.buf += data
                return
            flaw = "headers_too_large" if len(data) > self.head_limit else "malformed_request"
            yield from self._flawed(Refusal(flaw, "request head"))
            return
        parsed = Refusal("headers_too_large", "request head") if end > self.head_limit else _parse_head(data[:end])
        if isinstance(parsed, Refusal):
            yield from self._flawed(parsed)
            return
        self.request, size = parsed
        self.buf += data[end + 4 :]
        yield ReceiveHttp(http_events.RequestHeaders(self.stream_id, self.request, size == 0))
        reader = make_body_reader(size)
        # Trailer fields of a request are dropped: they were not judged.
        self.body_reader = _TrailerReader(reader) if isinstance(reader, ChunkedReader) else reader  # type: ignore[assignment]
        self.state = self.read_body
        yield from self.state(event)

    def _flawed(self, flaw: Refusal) -> Commands:
        self.request = _request(b"GET", b"/", b"HTTP/1.1", [(b"connection", b"close")])
        self.request.flaw = flaw  # type: ignore[attr-defined]
        self.state = self.done
        yield ReceiveHttp(http_events.RequestHeaders(self.stream_id, self.request, end_stream=True))
        yield ReceiveHttp(http_events.RequestEndOfMessage(self.stream_id))
        self.request_done = True

    def wait(self, event: events.Event) -> Commands:
        """Hold a pipelined request back, up to a limit, until the answer before it is out."""
        if isinstance(event, events.DataReceived) and len(self.buf) > _PIPELINE_BYTES:
            yield Abort(self.conn)
            return
        yield from super().wait(event)

    def send(self, event: http_events.HttpEvent) -> Commands:
        """Send an answer; trailers only where chunked framing can carry them."""
        if isinstance(event, http_events.ResponseTrailers):
            self.trailers = event.trailers
        elif isinstance(event, http_events.ResponseEndOfMessage) and (trailers := self.trailers):
            self.trailers = None
            if self.response and self.response.headers.get("transfer-encoding"):
                yield commands.SendData(self.conn, b"0\r\n" + bytes(trailers) + b"\r\n")
                yield from self.mark_done(response=True)
            else:
                yield from super().send(event)
        elif isinstance(event, http_events.ResponseProtocolError):
            yield commands.CloseConnection(self.conn)
        else:
            yield from super().send(event)

    @property
    def mid_head(self) -> bool:
        """Whether a request head has begun to arrive and is not complete."""
        return self.state == self.read_headers and bool(self.buf)


def _bare(data: bytes) -> bool:
    """Whether an unfinished head already holds a bare CR or LF, or begins with an empty line."""
    rest = data.replace(b"\r\n", b"").removesuffix(b"\r")
    return b"\r" in rest or b"\n" in rest or data.startswith(b"\r\n")


class _TrailerReader:
    """h11's chunked reader, with trailer fields set aside: mitmproxy's own reader cannot take them."""

    def __init__(self, reader: ChunkedReader) -> None:
        self._reader = reader
        self.read_eof = reader.read_eof
        self.trailers: list[tuple[bytes, bytes]] = []

    def __call__(self, buf: Any) -> Any:
        found = self._reader(buf)
        if isinstance(found, EndOfMessage) and found.headers:
            self.trailers = [(bytes(name), bytes(value)) for name, value in found.headers]
            return EndOfMessage()
        return found


class UpstreamHttp1(Http1Client):
    """The upstream's side of HTTP/1.1: interim answers are skipped, clean connections are kept."""

    head_limit = 1 << 18

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        """Read a response head; 1xx answers other than 101 are passed over (RFC 9110 section 15.2)."""
        if isinstance(event, events.DataReceived) and self.request:
            while True:
                data = bytes(self.buf.maybe_extract_at_most(len(self.buf)) or b"") if self.buf else b""
                end = data.find(b"\r\n\r\n")
                interim = data[:12].startswith(b"HTTP/1.1 1") and not data.startswith(b"HTTP/1.1 101")
                self.buf += data[end + 4 :] if interim and end >= 0 else data
                if not interim or end < 0:
                    break
            if end < 0:
                if len(data) > self.head_limit:
                    yield commands.CloseConnection(self.conn)
                    yield ReceiveHttp(
                        http_events.ResponseProtocolError(
                            self.stream_id or 1, "head too large", http_events.ErrorCode.GENERIC_SERVER_ERROR
                        )
                    )
                return
        yield from super().read_headers(event)

    def read_body(self, event: events.Event) -> Commands:
        """Pass body data and trailers on."""
        if isinstance(self.body_reader, ChunkedReader):
            self.body_reader = _TrailerReader(self.body_reader)  # type: ignore[assignment]
        reader = self.body_reader
        for command in super().read_body(event):
            if (
                isinstance(reader, _TrailerReader)
                and reader.trailers
                and isinstance(command, ReceiveHttp)
                and isinstance(command.event, http_events.ResponseEndOfMessage)
            ):
                trailers = http.Headers(reader.trailers)
                yield ReceiveHttp(http_events.ResponseTrailers(command.event.stream_id, trailers))
            yield command

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        """After a whole exchange: release the connection when both sides may go on using it, else close it."""
        yield from super().mark_done(request=request, response=response)
        if self.idle and getattr(self.conn, "share", False):
            yield Release(self.conn)

    @property
    def idle(self) -> bool:
        """Whether no exchange is under way and nothing unexpected has arrived."""
        return self.state == self.read_headers and self.request is None and not self.buf


# ---- HTTP/2 ----


class ClientHttp2(Http2Server):
    """The client's side of HTTP/2 with our own limits."""

    def __init__(self, context: Context, streams_limit: int, head_limit: int) -> None:
        super().__init__(context)
        settings = self.h2_conn.local_settings
        settings.max_concurrent_streams = streams_limit
        settings.max_header_list_size = head_limit
        settings.acknowledge()
        self.resets_left = 10 * streams_limit

    def handle_h2_event(self, event: Any) -> layer.CommandGenerator[bool]:
        """Cut a client that opens and resets streams without end (rapid reset, CVE-2023-44487)."""
        if type(event).__name__ == "StreamReset":
            self.resets_left -= 1
            if self.resets_left < 0:
                yield Abort(self.conn)
                return True
        return (yield from super().handle_h2_event(event))

    def backlog(self) -> dict[int, int]:
        """Bytes that wait for the client's flow-control window, for each stream that has some."""
        return {
            stream_id: sum(len(chunk.data) for chunk in buffer)
            for stream_id, buffer in self.h2_conn.stream_buffers.items()
            if buffer
        }


class UpstreamHttp2(Http2Client):
    """The upstream's side of HTTP/2."""

    def backlog(self) -> int:
        """Bytes that wait for the upstream's flow-control windows."""
        return sum(len(chunk.data) for buffer in self.h2_conn.stream_buffers.values() for chunk in buffer)


# ---- the layer above both ----


class UpstreamLayer(mitm.HttpClient):
    """Opens a connection and picks its protocol."""

    def _handle_event(self, event: events.Event) -> Commands:
        error = None if self.context.server.connected else (yield commands.OpenConnection(self.context.server))
        if not error:
            kind = UpstreamHttp2 if self.context.server.alpn == b"h2" else UpstreamHttp1
            self.child_layer = kind(self.context)
            self._handle_event = self.child_layer.handle_event  # type: ignore[method-assign]
            yield from self._handle_event(event)
        yield mitm.RegisterHttpConnection(self.context.server, error)


class HttpEdge(mitm.HttpLayer):
    """All requests of one client connection."""

    def __init__(self, context: Context, stream_class: type[Any], streams: int, head_bytes: int) -> None:
        super().__init__(context, mitm.HTTPMode.transparent)
        self.stream_class = stream_class
        self.streams_limit, self.head_bytes = streams, head_bytes

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            fork = self.context.fork()
            self.connections[self.context.client] = (
                ClientHttp2(fork, self.streams_limit, self.head_bytes)
                if self.context.client.alpn == b"h2"
                else ClientHttp1(fork, self.head_bytes)
            )
        if isinstance(event, Interrupt):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                yield from self.event_to_child(stream, event)
            return
        yield from super()._handle_event(event)

    @property
    def client(self) -> ClientHttp1 | ClientHttp2:
        """The client's protocol layer."""
        return self.connections[self.context.client]  # type: ignore[return-value]

    def make_stream(self, stream_id: int) -> Commands:
        """A stream of ours for each request."""
        self.streams[stream_id] = self.stream_class(self.context.fork(), stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())

    def get_connection(self, event: mitm.GetHttpConnection, *, reuse: bool = True) -> Commands:
        """Use an open connection of this client, or open one (the dialler asks the pool first)."""
        if not isinstance(event, DialUpstream):
            raise TypeError("only an upstream is dialled")
        shared = self.context.client.alpn == b"h2" and not event.upstream.http2
        for connection, child in () if shared or not reuse else list(self.connections.items()):
            if not event.connection_spec_matches(connection):
                continue
            if connection in self.waiting_for_establishment:
                self.waiting_for_establishment[connection].append(event)
                return
            if connection.connected and (event.upstream.http2 or getattr(_leaf(child), "idle", False)):
                stream = self.command_sources.pop(event)
                yield from self.event_to_child(stream, mitm.GetHttpConnectionCompleted(event, (connection, None)))
                return
        context = self.context.fork()
        context.server = Server(address=event.address)
        context.server.upstream = event.upstream  # type: ignore[attr-defined]
        context.server.share = shared  # type: ignore[attr-defined]
        child = UpstreamLayer(context)
        self.connections[context.server] = child
        self.waiting_for_establishment[context.server].append(event)
        yield from self.event_to_child(child, events.Start())

    def idle(self, connection: Connection) -> bool:
        """Whether an upstream connection may serve somebody else."""
        return bool(getattr(_leaf(self.connections.get(connection)), "idle", False))

    def forget(self, connection: Connection) -> None:
        """Drop what is kept for a connection that is gone."""
        self.connections.pop(connection, None)
        self.waiting_for_establishment.pop(connection, None)


def _leaf(child: layer.Layer | None) -> layer.Layer | None:
    return getattr(child, "child_layer", child)


def is_bodyless(method: str, status: int) -> bool:
    """Whether an answer has no body whatever its headers say (RFC 9110 section 6.4.1)."""
    return method == "HEAD" or 100 <= status < 200 or status in _NO_BODY_STATUS  # noqa: PLR2004

