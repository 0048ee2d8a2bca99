"""HTTP/1.1 on both sides, as codecs for mitmproxy's HTTP layer: strict, bounded, streaming (RFC 9112).

They take the place of mitmproxy's own, which are made for looking at traffic: those accept folded lines, bare line
feeds and absolute-form targets, buffer without a limit and raise on trailers. A request head that could be read in two
ways becomes a request with a flaw, so that the pipeline answers and records it like every other refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import _events as out
from mitmproxy.proxy.layers.http._base import HttpConnection, ReceiveHttp

from gateway.core.connection_auth import authenticates_connection
from gateway.core.reasons import Refusal
from gateway.edge.mitm import messages
from gateway.edge.mitm.commands import Abort, Linger, Release
from gateway.edge.mitm.framing import CHUNKED, UNTIL_CLOSE, Chunks, Fields, Malformed, body_size, read_fields, take
from gateway.edge.mitm.turn_budget import Later, Turn
from gateway.edge.mitm.websocket_frames import WebSocketFrames

Commands = layer.CommandGenerator[Any]
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) ([!-~]+) HTTP/1\.1\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n\x00]*))?\Z")
_PIPELINE_BYTES = 1 << 20
_RESPONSE_HEAD_BYTES = 1 << 18
_SWITCHING = 101
_BODY_BYTES_A_TURN = 1 << 16
_HEADS_A_TURN = 16


class _Http1(HttpConnection):
    """What both sides share: a bounded buffer and a body of known, chunked or open-ended size."""

    def __init__(self, context: Context, conn: Connection) -> None:
        super().__init__(context, conn)
        self.buf = bytearray()
        self.stage = "head"
        self.last = False
        self._left = 0
        self._chunks: Chunks | None = None
        self._frames = WebSocketFrames()

    def handle_event(self, event: events.Event) -> Commands:
        """Codecs never block, so mitmproxy's pause machinery is not needed."""
        return self._handle_event(event)

    def _take_head(self, limit: int) -> bytes | None:
        """The next message head without its empty line; None until it is there. Raises Malformed."""
        end = self.buf.find(b"\r\n\r\n", 0, limit + 4)
        if end < 0:
            if len(self.buf) > limit:
                raise Malformed("too large")
            rest = self.buf.replace(b"\r\n", b"").removesuffix(b"\r")
            if b"\r" in rest or b"\n" in rest or b"\0" in rest:
                raise Malformed("line ending")
            return None
        return take(self.buf, end + 4)[:-4]

    def _expect_body(self, size: int, *, extensions: bool) -> None:
        self._left = size
        self._chunks = Chunks(extensions=extensions) if size == CHUNKED else None

    def _take_body(self) -> tuple[bytes, bool, list[tuple[bytes, bytes]]]:
        """What has arrived of the body, as far as one turn goes, whether it is complete, its trailers.

        Raises Malformed.
        """
        if self._chunks is not None:
            data, complete = self._chunks.read(self.buf)
            return data, complete, self._chunks.trailers
        data = take(self.buf, _BODY_BYTES_A_TURN if self._left == UNTIL_CLOSE else min(self._left, _BODY_BYTES_A_TURN))
        if self._left != UNTIL_CLOSE:
            self._left -= len(data)
        return data, self._left == 0, []

    def _body_later(self) -> Commands:
        """Ask for another turn when this one ended before the input did."""
        if self.stage == "body" and self.buf and (self._chunks is None or self._chunks.is_waiting):
            yield Later(self.conn)

    def _take_frames(self) -> layer.CommandGenerator[bytes]:
        """Some WebSocket frames; the others come in later turns."""
        data = self._frames.take_turn(self.buf)
        if self._frames.is_waiting:
            yield Later(self.conn)
        return data


class ClientHttp1(_Http1):
    """The client's side. Stages: head, body, wait (for the answer before a pipelined request), tunnel, done."""

    def __init__(self, context: Context, head_limit: int) -> None:
        super().__init__(context, context.client)
        self.head_limit = head_limit
        self.stream_id = 1
        self._answered = False
        self._chunked = False
        self._trailers: Fields = ()

    @property
    def mid_head(self) -> bool:
        """Whether a request head has begun to arrive and is not complete."""
        return self.stage == "head" and bool(self.buf)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            if self.stage == "done":
                return
            self.buf += event.data
            yield from self._advance()
        elif isinstance(event, Turn):
            yield from self._advance()
        elif isinstance(event, out.HttpEvent):
            yield from self._send(event)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._closed()

    def _advance(self) -> Commands:
        if self.stage == "head" and self.buf:
            yield from self._read_head()
        elif self.stage == "body":
            yield from self._read_body()
        elif self.stage == "wait" and len(self.buf) > _PIPELINE_BYTES:
            yield Abort(self.conn)
        elif self.stage == "tunnel" and self.buf and (data := (yield from self._take_frames())):
            yield ReceiveHttp(out.RequestData(self.stream_id, data))

    def _read_head(self) -> Commands:
        flaw: Refusal | None = None
        data = b""
        try:
            head = self._take_head(self.head_limit)
            if head is None:
                return
            lines = head.split(b"\r\n")
            start = _REQUEST_LINE.match(lines[0])
            if start is None:
                raise Malformed("request line")  # noqa: TRY301
            fields, lengths, encodings, self.last = read_fields(lines[1:])
            size = body_size(lengths, encodings, 0)
            method, target = start.groups()
            # What came along of the body is looked at before anything is said to an upstream.
            self._expect_body(size, extensions=False)
            data, complete, _ = self._take_body()
        except Malformed as error:
            code = "headers_too_large" if str(error) == "too large" else "malformed_request"
            flaw = Refusal(code, str(error))
            method, target, fields, size, complete, self.last = b"GET", b"/", (), 0, True, True
        request = messages.request(method, target, fields)
        request.flaw = flaw  # type: ignore[attr-defined]
        self._answered = False
        self.stage = "done" if flaw else "wait" if complete else "body"
        yield ReceiveHttp(out.RequestHeaders(self.stream_id, request, size == 0))
        if data:
            yield ReceiveHttp(out.RequestData(self.stream_id, data))
        if complete:
            # Trailer fields of a request are dropped: they were not judged.
            yield ReceiveHttp(out.RequestEndOfMessage(self.stream_id))
        yield from self._body_later()

    def _read_body(self) -> Commands:
        try:
            data, complete, _ = self._take_body()
        except Malformed as error:
            self.stage = "done"
            wrong = out.ErrorCode.REQUEST_VALIDATION_FAILED
            yield ReceiveHttp(out.RequestProtocolError(self.stream_id, str(error), wrong))
            return
        if complete:
            self.stage = "wait"
        if data:
            yield ReceiveHttp(out.RequestData(self.stream_id, data))
        if complete:
            yield ReceiveHttp(out.RequestEndOfMessage(self.stream_id))
            if self._answered:
                yield from self._next()
        yield from self._body_later()

    def _send(self, event: out.HttpEvent) -> Commands:
        if isinstance(event, out.ResponseHeaders):
            response = event.response
            fields = response.data.headers.fields
            reason = b"" if response.data.http_version == b"HTTP/2.0" else response.data.reason
            head = b"HTTP/1.1 %d %s\r\n" % (response.status_code, reason)
            yield commands.SendData(self.conn, head + b"".join([b"%s: %s\r\n" % field for field in fields]) + b"\r\n")
            if response.status_code == _SWITCHING:
                self.stage = "tunnel"
            elif response.status_code >= 200:  # noqa: PLR2004
                self._chunked = (b"transfer-encoding", b"chunked") in fields
                self.last = self.last or (b"connection", b"close") in fields
        elif isinstance(event, out.ResponseData):
            data = b"%x\r\n%s\r\n" % (len(event.data), event.data) if self._chunked else event.data
            yield commands.SendData(self.conn, data)
        elif isinstance(event, out.ResponseTrailers):
            self._trailers = event.trailers.fields
        elif isinstance(event, out.ResponseEndOfMessage):
            if self._chunked:
                trailers = b"".join([b"%s: %s\r\n" % field for field in self._trailers])
                yield commands.SendData(self.conn, b"0\r\n" + trailers + b"\r\n")
            self._answered, self._chunked, self._trailers = True, False, ()
            if self.stage == "wait" or self.last:
                yield from self._next()
            elif self.stage == "tunnel":
                yield from self._advance()
        elif isinstance(event, out.ResponseProtocolError):
            self.stage = "done"
            yield commands.CloseConnection(self.conn)

    def _next(self) -> Commands:
        """The exchange is over: on to the next request, or to the end of the connection."""
        if self.last:
            self.stage = "done"
            yield Linger(self.conn)
            return
        self.stream_id += 2
        self.stage = "head"
        if self.buf:
            # A pipelined request begins in a turn of its own.
            yield Later(self.conn)

    def _closed(self) -> Commands:
        stage, self.stage = self.stage, "done"
        if stage == "tunnel":
            yield ReceiveHttp(out.RequestEndOfMessage(self.stream_id))
        elif stage in {"body", "wait"}:
            gone = out.ErrorCode.CLIENT_DISCONNECTED
            yield ReceiveHttp(out.RequestProtocolError(self.stream_id, "client disconnected", gone))
        yield commands.CloseConnection(self.conn)


class UpstreamHttp1(_Http1):
    """The upstream's side: one exchange at a time, interim answers passed over, clean connections kept."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.server)
        self.stage = "idle"
        self.stream_id = 0
        self._method = b""
        self._chunked = False
        self._sent_all = False
        self._got_all = False

    @property
    def idle(self) -> bool:
        """Whether no exchange is under way and nothing unexpected has arrived."""
        return self.stage == "idle" and not self.buf

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            self.buf += event.data
            yield from self._advance()
        elif isinstance(event, Turn):
            yield from self._advance()
        elif isinstance(event, out.HttpEvent):
            yield from self._send(event)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._closed()

    def _send(self, event: out.HttpEvent) -> Commands:
        if isinstance(event, out.RequestHeaders):
            request = event.request.data
            self.stream_id, self._method = event.stream_id, request.method
            self.stage, self.last = "head", False
            self._sent_all = self._got_all = False
            fields = request.headers.fields
            self._chunked = (b"transfer-encoding", b"chunked") in fields
            self._bind(fields)
            head = b"%s %s HTTP/1.1\r\n" % (request.method, request.path)
            yield commands.SendData(self.conn, head + b"".join([b"%s: %s\r\n" % field for field in fields]) + b"\r\n")
        elif isinstance(event, out.RequestData):
            data = b"%x\r\n%s\r\n" % (len(event.data), event.data) if self._chunked else event.data
            yield commands.SendData(self.conn, data)
        elif isinstance(event, out.RequestEndOfMessage):
            if self._chunked:
                yield commands.SendData(self.conn, b"0\r\n\r\n")
            self._sent_all = True
            yield from self._next()
        elif isinstance(event, out.RequestProtocolError):
            stage, self.stage = self.stage, "done"
            # Of a request, what waits to be written is not sent any more; a WebSocket's close frame is.
            yield commands.CloseConnection(self.conn) if stage == "tunnel" else Abort(self.conn)

    def _advance(self) -> Commands:
        for _ in range(_HEADS_A_TURN):
            interim = self.stage == "head" and bool(self.buf) and (yield from self._read_head())
            if not interim:
                break
        else:
            yield Later(self.conn)
        if self.stage == "body":
            yield from self._read_body()
        elif self.stage == "tunnel" and self.buf:
            if data := (yield from self._take_frames()):
                yield ReceiveHttp(out.ResponseData(self.stream_id, data))
        elif self.stage == "idle" and self.buf:
            # Nobody asked: whatever this is, it is not the answer to the next request.
            self.stage = "done"
            yield commands.CloseConnection(self.conn)

    def _read_head(self) -> layer.CommandGenerator[bool]:
        """Read one response head; whether it was an interim one (RFC 9110 section 15.2)."""
        try:
            head = self._take_head(_RESPONSE_HEAD_BYTES)
            if head is None:
                return False
            lines = head.split(b"\r\n")
            start = _STATUS_LINE.match(lines[0])
            if start is None:
                raise Malformed("status line")  # noqa: TRY301
            fields, lengths, encodings, last = read_fields(lines[1:], space_before_colon=True)
            status = int(start[2])
            bodyless = self._method == b"HEAD" or status < 200 or status in {204, 304}  # noqa: PLR2004
            size = 0 if bodyless else body_size(lengths, encodings, UNTIL_CLOSE)
        except Malformed as error:
            yield from self._broken(str(error))
            return False
        self._bind(fields)
        if status < 200 and status != _SWITCHING:  # noqa: PLR2004
            return True
        self.last = self.last or last or start[1] == b"0" or size == UNTIL_CLOSE
        response = messages.response(status, fields, reason=start[3] or b"")
        if status == _SWITCHING:
            self.stage = "tunnel"
            yield ReceiveHttp(out.ResponseHeaders(self.stream_id, response, end_stream=True))
            yield ReceiveHttp(out.ResponseEndOfMessage(self.stream_id))
            return True
        self.stage = "body"
        self._expect_body(size, extensions=True)
        yield ReceiveHttp(out.ResponseHeaders(self.stream_id, response, size == 0))
        return False

    def _read_body(self) -> Commands:
        try:
            data, complete, trailers = self._take_body()
        except Malformed as error:
            yield from self._broken(str(error))
            return
        if data:
            yield ReceiveHttp(out.ResponseData(self.stream_id, data))
        if complete and self.stage == "body":
            if trailers:
                self._bind(trailers)
                yield ReceiveHttp(out.ResponseTrailers(self.stream_id, messages.headers(trailers)))
            yield from self._complete()
        yield from self._body_later()

    def _complete(self) -> Commands:
        self._got_all = True
        self.stage = "sending"
        yield ReceiveHttp(out.ResponseEndOfMessage(self.stream_id))
        yield from self._next()

    def _next(self) -> Commands:
        """After a whole exchange: keep the connection, release it to the pool, or close it."""
        if not (self._sent_all and self._got_all) or self.stage == "done":
            return
        if self.last or self.buf:
            self.stage = "done"
            yield commands.CloseConnection(self.conn)
            return
        self.stage = "idle"
        self.conn.used = True  # type: ignore[attr-defined]
        if getattr(self.conn, "share", False) and not self.conn.bound:  # type: ignore[attr-defined]
            yield Release(self.conn)

    def _bind(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Never hand on a connection that a message ties to its person."""
        if authenticates_connection(fields):
            self.conn.bound = True  # type: ignore[attr-defined]

    def _broken(self, what: str, code: out.ErrorCode = out.ErrorCode.GENERIC_SERVER_ERROR) -> Commands:
        self.stage = "done"
        yield commands.CloseConnection(self.conn)
        yield ReceiveHttp(out.ResponseProtocolError(self.stream_id, what, code))

    def _closed(self) -> Commands:
        stage, self.stage = self.stage, "done"
        # Only a clean end is the end of such a body: a reset is a cut.
        if stage == "body" and self._left == UNTIL_CLOSE and self.conn.error is None:
            yield from self._complete()
        elif stage == "tunnel":
            yield ReceiveHttp(out.ResponseEndOfMessage(self.stream_id))
        elif stage == "head" and not self.buf and getattr(self.conn, "used", False):
            # The upstream ended an idle connection while this request was on its way.
            yield from self._broken("stale", out.ErrorCode.CONNECT_FAILED)
        elif stage in {"head", "body"}:
            yield from self._broken("closed")
        yield commands.CloseConnection(self.conn)
