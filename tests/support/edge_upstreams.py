"""Upstreams that record exactly what they get and answer exactly what a test tells them to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

Headers = list[tuple[str, str]]


@dataclass
class Seen:
    """A request as the upstream got it."""

    method: str
    target: str
    headers: Headers
    body: bytes = b""
    trailers: Headers = field(default_factory=list)
    connection: int = 0
    ended: bool = False
    size: int = 0

    def get(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


class Talk:
    """One connection of an HTTP/1.1 upstream, in a handler's hands."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader, self.writer, self.number = reader, writer, number

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)
        await self.writer.drain()

    async def ok(self, body: bytes = b"ok", headers: str = "") -> None:
        await self.send(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body)

    def reset(self) -> None:
        """End with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Handler = Callable[[Talk, Seen], Awaitable[None]]


async def say_ok(talk: Talk, seen: Seen) -> None:
    """The plain answer."""
    await talk.ok()


class _Upstream:
    """A server on loopback; `received` is every byte of every connection."""

    scheme = "http"

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.connections = 0
        self.received = b""
        self.seen: list[Seen] = []
        self.peers: list[Any] = []
        self.tls = tls
        self.port = port
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.server.close()
        for writer in list(self._open):
            writer.transport.abort()
        while self._open:
            await asyncio.sleep(0)

    async def drop(self) -> None:
        """End every connection that is open."""
        for writer in list(self._open):
            writer.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        if self.tls:
            self.peers.append(writer.get_extra_info("peercert"))
        try:
            await self.talk(Talk(reader, writer, self.connections))
        except (OSError, EOFError, h2.exceptions.ProtocolError):
            pass
        finally:
            self._open.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()

    async def talk(self, talk: Talk) -> None:
        raise NotImplementedError


class Http1Upstream(_Upstream):
    """Reads requests strictly and hands each to `handler`; with `whole` False before its body was read."""

    def __init__(self, handler: Handler = say_ok, *, whole: bool = True, **how: Any) -> None:
        super().__init__(**how)
        self.handler, self.whole = handler, whole

    async def _until(self, talk: Talk, mark: bytes) -> bytes:
        data = await talk.reader.readuntil(mark)
        self.received += data
        return data[: -len(mark)]

    async def _exactly(self, talk: Talk, size: int) -> bytes:
        data = await talk.reader.readexactly(size)
        self.received += data
        return data

    async def talk(self, talk: Talk) -> None:
        while True:
            try:
                head = await self._until(talk, b"\r\n\r\n")
            except asyncio.IncompleteReadError as rest:
                self.received += rest.partial
                return
            start, *lines = head.decode("latin-1").split("\r\n")
            method, target, version = start.split(" ")
            assert version == "HTTP/1.1"
            fields = [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
            seen = Seen(method, target, fields, connection=talk.number)
            self.seen.append(seen)
            if self.whole:
                await self.body(talk, seen)
            await self.handler(talk, seen)
            if not self.whole:
                return

    async def body(self, talk: Talk, seen: Seen) -> None:
        """Read the request's body."""
        if seen.get("transfer-encoding") == "chunked":
            assert seen.get("content-length") is None
            while size := int(await self._until(talk, b"\r\n"), 16):
                seen.body += await self._exactly(talk, size)
                assert await self._exactly(talk, 2) == b"\r\n"
            assert await self._until(talk, b"\r\n") == b""
        elif length := seen.get("content-length"):
            seen.body = await self._exactly(talk, int(length))
        seen.ended = True


H2Handler = Callable[["H2Talk", int, Seen], Awaitable[None]]


class H2Talk:
    """One connection of an HTTP/2 upstream."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.conn = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=False,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.changed = asyncio.Condition()
        self.requests: dict[int, Seen] = {}
        self.resets: dict[int, int] = {}

    async def flush(self) -> None:
        await self.talk.send(self.conn.data_to_send())

    async def head(self, stream: int, status: int = 200, headers: Headers | None = None, *, end: bool = False) -> None:
        self.conn.send_headers(stream, [(":status", str(status)), *(headers or [])], end_stream=end)
        await self.flush()

    async def data(self, stream: int, body: bytes, *, end: bool = False) -> None:
        view = memoryview(body)
        while view:
            room = min(self.conn.local_flow_control_window(stream), self.conn.max_outbound_frame_size, len(view))
            if room <= 0:
                async with self.changed:
                    await self.changed.wait()
                continue
            self.conn.send_data(stream, bytes(view[:room]))
            view = view[room:]
            await self.flush()
        if end:
            self.conn.end_stream(stream)
            await self.flush()

    async def trailers(self, stream: int, headers: Headers) -> None:
        self.conn.send_headers(stream, headers, end_stream=True)
        await self.flush()

    async def ended(self, stream: int) -> Seen:
        """Wait until the request is whole."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.requests[stream].ended)
        return self.requests[stream]

    async def received(self, stream: int, size: int) -> bytes:
        """Wait until `size` bytes of the request's body are there."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.requests[stream].body) >= size)
        return self.requests[stream].body


async def say_ok_2(talk: H2Talk, stream: int, seen: Seen) -> None:
    """The plain answer."""
    await talk.ended(stream)
    await talk.head(stream, 200, [("content-type", "text/plain")])
    await talk.data(stream, b"ok", end=True)


class Http2Upstream(_Upstream):
    """Hands each stream to `handler` as soon as its head is there."""

    def __init__(self, handler: H2Handler = say_ok_2, *, keep: bool = True, places: int = 0, **how: Any) -> None:
        super().__init__(**how)
        self.handler, self.keep, self.places = handler, keep, places
        self.talks: list[H2Talk] = []

    async def talk(self, talk: Talk) -> None:
        side = H2Talk(talk)
        self.talks.append(side)
        if not self.keep:
            side.conn.local_settings.initial_window_size = 1 << 24
            side.conn.local_settings.acknowledge()
        if self.places:
            side.conn.local_settings.max_concurrent_streams = self.places
            side.conn.local_settings.acknowledge()
        side.conn.initiate_connection()
        if not self.keep:
            side.conn.increment_flow_control_window(1 << 24)
        await side.flush()
        tasks: set[asyncio.Task[None]] = set()
        try:
            while data := await talk.reader.read(1 << 18):
                if self.keep:
                    self.received += data
                for event in side.conn.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        tasks.add(asyncio.ensure_future(self._request(side, event, talk.number)))
                    self._take(side, event)
                await side.flush()
                async with side.changed:
                    side.changed.notify_all()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _request(self, side: H2Talk, event: h2.events.RequestReceived, number: int) -> None:
        await self.handler(side, event.stream_id, side.requests[event.stream_id])

    def _take(self, side: H2Talk, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            fields = [(str(name), str(value)) for name, value in event.headers]
            pseudo = dict(fields)
            seen = Seen(pseudo[":method"], pseudo[":path"], fields, connection=self.connections)
            side.requests[event.stream_id] = seen
            self.seen.append(seen)
        elif isinstance(event, h2.events.DataReceived):
            seen = side.requests[event.stream_id]
            seen.size += len(event.data)
            if self.keep:
                seen.body += event.data
            side.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            side.requests[event.stream_id].trailers = [(str(name), str(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            side.requests[event.stream_id].ended = True
        elif isinstance(event, h2.events.StreamReset):
            side.resets[event.stream_id] = int(event.error_code)
