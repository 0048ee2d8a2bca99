"""HTTP/2 on both sides: mitmproxy's codecs with our limits, fed frame by frame (RFC 9113)."""

from __future__ import annotations

import collections
from collections.abc import Sized
from typing import Any, Protocol

from h2.errors import ErrorCodes
from h2.utilities import SizeLimitDict
from hyperframe.frame import WindowUpdateFrame
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestData, RequestProtocolError, ResponseData
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Connection, Http2Server

from gateway.edge.mitm.commands import Abort, Linger
from gateway.edge.mitm.control_frames import FRAME_BYTES, FrameReader, FrameRefused
from gateway.edge.mitm.turn_budget import Later, Turn

Commands = layer.CommandGenerator[Any]
_RESPONSE_BLOCK_BYTES = 1 << 18
_CLOSED_STREAMS = 1 << 10
_STREAM_WINDOW_BYTES = 1 << 18


class FramedHttp2(Http2Connection):
    """mitmproxy's HTTP/2 codec, fed frame by frame: a few in each turn, none of them beyond the peer's budgets.

    One frame at a time also keeps events in order: the codec would close a stream by a RST_STREAM of the same read
    before anybody has seen its request, and the reset would be lost.
    """

    frames: FrameReader
    over = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._finished: list[int] = []

    def _handle_event(self, event: events.Event) -> Commands:
        if self._finished and not self.over:
            self._finished = [stream_id for stream_id in self._finished if not self.forget(stream_id)]
        if isinstance(event, events.DataReceived):
            self.frames.add(event.data)
        elif not isinstance(event, Turn):
            if isinstance(event, RequestData | ResponseData):
                self.frames.earn_data(len(event.data))
            yield from super()._handle_event(event)
            return
        try:
            frames = self.frames.read_turn()
        except FrameRefused as refused:
            yield from self.refuse(refused)
            return
        for frame in frames:
            if self.over:
                return
            yield from super()._handle_event(events.DataReceived(self.conn, frame))
        if self.frames.has_frame and not self.over:
            yield Later(self.conn)

    @property
    def unread_bytes(self) -> int:
        """What has arrived and is no whole frame or header block yet, or waits for a later turn."""
        return len(self.frames.buffer) + self.frames.block_bytes

    def finish(self, stream_id: int) -> None:
        """A request is over: what is known of its stream is needed until the peer's end of it is closed, too."""
        self._finished.append(stream_id)

    def forget(self, stream_id: int) -> bool:
        """Forget a finished stream if it is closed; whether it was."""
        if not self.is_closed(stream_id):
            return False
        self.streams.pop(stream_id, None)
        return True

    def limit(self) -> None:
        """Announce the frame size of RFC 9113 section 4.2, not mitmproxy's 128 KiB; remember fewer closed streams."""
        self.h2_conn._closed_streams = SizeLimitDict(size_limit=_CLOSED_STREAMS)  # noqa: SLF001  (65,536 otherwise)
        self.h2_conn.local_settings.max_frame_size = self.h2_conn.max_inbound_frame_size = FRAME_BYTES
        self.h2_conn.local_settings.acknowledge()

    def refuse(self, refused: FrameRefused) -> Commands:
        """End the connection with a GOAWAY."""
        yield from self.protocol_error(str(refused), refused.code)

    def close_connection(self, msg: str) -> Commands:
        """End every stream."""
        self.over = True
        yield from super().close_connection(msg)

    def done(self, _: events.Event) -> Commands:
        """The connection is over: whatever still comes is ignored."""
        yield from ()


class StreamGate(Protocol):
    """Says of a client's streams what may go on. `live` are the requests that are not over for the gateway."""

    @property
    def live(self) -> Sized:
        """The requests that are not over for the gateway."""

    @property
    def is_full(self) -> bool:
        """Whether no further request may begin for now."""

    def is_stalled(self, stream_id: int) -> bool:
        """Whether nobody takes a stream's body for now."""


class ClientHttp2(FramedHttp2, Http2Server):
    """The client's side of HTTP/2 with our own limits.

    A stream whose body nobody takes gets no new window (RFC 9113 section 5.2), so the others go on beside it.
    """

    def __init__(self, context: Context, streams_limit: int, head_limit: int, gate: StreamGate) -> None:
        super().__init__(context)
        # Twice the limit is read, so that a request a little over it gets an answer (431), and no more.
        self.frames = FrameReader(is_server=True, block_limit=2 * head_limit)
        settings = self.h2_conn.local_settings
        settings.max_concurrent_streams = streams_limit
        settings.max_header_list_size = head_limit
        settings.initial_window_size = _STREAM_WINDOW_BYTES
        self.limit()
        self._gate, self._live_most = gate, 2 * streams_limit
        self._owed: collections.Counter[int] = collections.Counter()
        self._resets_most = self.resets_left = 10 * streams_limit
        self._stuck: dict[int, tuple[int, float]] = {}

    def handle_h2_event(self, event: Any) -> layer.CommandGenerator[bool]:
        """Cut a client that opens and resets streams without end (rapid reset, CVE-2023-44487), or makes us reset."""
        kind = type(event).__name__
        if kind == "StreamReset":
            self.resets_left -= 1
            if self.resets_left < 0:
                self.over = True
                yield Abort(self.conn)
                return True
        elif kind == "RequestReceived" and (len(self._gate.live) >= self._live_most or self._gate.is_full):
            # For HTTP/2 a reset stream is closed; what it began takes its time to end.
            self.h2_conn.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            return False
        elif kind == "DataReceived" and self._gate.is_stalled(event.stream_id):
            self._owed[event.stream_id] += event.flow_controlled_length
            self._open_connection_window(event.flow_controlled_length)
            event.flow_controlled_length = 0
        return (yield from super().handle_h2_event(event))

    def _open_connection_window(self, size: int) -> None:
        """Take data off the connection's window and leave the stream's as it is."""
        if increment := self.h2_conn._inbound_flow_control_window_manager.process_bytes(size):  # noqa: SLF001
            frame = WindowUpdateFrame(0, window_increment=increment)
            self.h2_conn._prepare_for_sending([frame])  # noqa: SLF001

    def open_windows(self) -> bytes:
        """Let streams go on whose bodies are taken again; what has to be sent for it."""
        for stream_id in [item for item in self._owed if not self._gate.is_stalled(item)]:
            size = self._owed.pop(stream_id)
            stream = self.h2_conn.streams.get(stream_id)
            if stream is not None and stream.open:
                self.h2_conn._prepare_for_sending(stream.acknowledge_received_data(size))  # noqa: SLF001
        return self.h2_conn.data_to_send()

    def protocol_error(self, message: str, error_code: int = ErrorCodes.PROTOCOL_ERROR) -> Commands:
        """Send a GOAWAY and linger: with input unread, a close would be a TCP reset that takes the GOAWAY with it."""
        for command in super().protocol_error(message, error_code):
            is_close = isinstance(command, commands.CloseConnection) and command.connection is self.conn
            yield Linger(self.conn) if is_close else command

    def forgive(self) -> None:
        """Called twice a second: let a client that cancels now and then go on."""
        self.resets_left = min(self._resets_most, self.resets_left + self._resets_most // 100)
        self.frames.earn_second(0.5)

    def unsent(self, stream_id: int) -> bool:
        """Whether something of a stream still waits for the client's window."""
        return bool(self.h2_conn.stream_buffers.get(stream_id))

    def stuck(self, now: float, patience_s: float) -> list[int]:
        """Streams of which the client has taken nothing for too long although something waits."""
        before, self._stuck = self._stuck, {}
        for stream_id, size in self.backlog().items():
            then = before.get(stream_id)
            self._stuck[stream_id] = then if then is not None and then[0] == size else (size, now)
        return [stream_id for stream_id, (_, since) in self._stuck.items() if now - since > patience_s]

    def backlog(self) -> dict[int, int]:
        """Bytes that wait for the client's flow-control window, for each stream that has some."""
        return {
            stream_id: sum(len(chunk.data) for chunk in buffer)
            for stream_id, buffer in self.h2_conn.stream_buffers.items()
            if buffer
        }


class UpstreamHttp2(FramedHttp2, Http2Client):
    """The upstream's side of HTTP/2."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.frames = FrameReader(is_server=False, block_limit=_RESPONSE_BLOCK_BYTES)
        self.limit()

    def forget(self, stream_id: int) -> bool:
        """As for the client's streams, which have other numbers here."""
        ours = self.our_stream_id.get(stream_id)
        if ours is None:
            return True
        if not super().forget(ours):
            return False
        del self.our_stream_id[stream_id], self.their_stream_id[ours]
        return True

    def refuse(self, refused: FrameRefused) -> Commands:
        """End the connection with a GOAWAY; its streams are known to the client by other numbers."""
        for command in super().refuse(refused):
            if isinstance(command, ReceiveHttp):
                command.event.stream_id = self.their_stream_id[command.event.stream_id]
            yield command

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, RequestProtocolError) and event.stream_id not in self.our_stream_id:
            # It waits for a place: nothing of it was sent, and nothing will be.
            self.stream_queue.pop(event.stream_id, None)
            return
        yield from super()._handle_event(event)

    def backlog(self) -> int:
        """Bytes that wait for the upstream's flow-control windows."""
        return sum(len(chunk.data) for buffer in self.h2_conn.stream_buffers.values() for chunk in buffer)
