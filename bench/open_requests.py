"""Client side of requests that stay open: each knows when it was cut. Asyncio protocols, five kinds."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import cast

import h2.config
import h2.connection
import h2.events

from bench.endless_services import TEXT_FRAME
from bench.processes import BenchFailed

KINDS = ("socket", "events", "upload", "download", "grpc")
_OPEN_S = 30.0
_CLOSE_FRAME = b"\x88"


class OpenRequest(asyncio.Protocol):
    """One request of a kind, over a connection of its own. `ended_at` is `time.perf_counter()` of its end."""

    def __init__(self, kind: str, host: str, token: str) -> None:
        self.kind, self.host, self.token = kind, host, token
        self.answered = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()
        self.ended_at = self.last_byte_at = 0.0
        self._seen = b""
        self._wire: h2.connection.H2Connection | None = None

    async def open(self, port: int, context: ssl.SSLContext) -> None:
        """Begin, and wait until the service has answered. Raises BenchFailed."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", port, ssl=context, server_hostname=self.host)
        async with asyncio.timeout(_OPEN_S):
            await self.answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.Transport", transport)
        if self.kind in {"download", "grpc"}:
            self._wire = h2.connection.H2Connection(h2.config.H2Configuration())
            self._wire.initiate_connection()
            head = [(":method", "GET"), (":scheme", "https"), (":authority", self.host), (":path", "/download")]
            if self.kind == "grpc":
                head = [(":method", "POST"), (":scheme", "https"), (":authority", self.host), (":path", "/a.B/C")]
                head += [("content-type", "application/grpc"), ("te", "trailers")]
            self._wire.send_headers(1, [*head, ("authorization", f"Bearer {self.token}")], self.kind == "download")
            self.transport.write(self._wire.data_to_send())
            return
        method, more = "GET", ""
        if self.kind == "upload":
            method, more = "POST", "content-length: 1073741824\r\nexpect: 100-continue\r\n"
        elif self.kind == "socket":
            more = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            more += "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        head_text = f"{method} /{self.kind} HTTP/1.1\r\nhost: {self.host}\r\nauthorization: Bearer {self.token}\r\n"
        self.transport.write(f"{head_text}{more}\r\n".encode("ascii"))

    def data_received(self, data: bytes) -> None:
        """What the gateway sends."""
        if self._wire is not None:
            self._over_http2(self._wire, data)
        elif not self.answered.done():
            self._seen += data
            head, found, rest = self._seen.partition(b"\r\n\r\n")
            if found:
                self._begun(head.split(b" ", 2)[1])
                self._over_http1(rest)
        else:
            self._over_http1(data)

    def _over_http1(self, data: bytes) -> None:
        if not data:
            return
        if self.kind == "upload" or (self.kind == "socket" and _CLOSE_FRAME in data.replace(TEXT_FRAME, b"")):
            self._over()
        else:
            self.last_byte_at = time.perf_counter()

    def _over_http2(self, wire: h2.connection.H2Connection, data: bytes) -> None:
        for event in wire.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self._begun(dict(event.headers)[b":status"])
            elif isinstance(event, h2.events.DataReceived):
                self.last_byte_at = time.perf_counter()
                wire.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset | h2.events.TrailersReceived | h2.events.StreamEnded):
                self._over()
        self.transport.write(wire.data_to_send())

    def _begun(self, status: bytes) -> None:
        if not self.answered.done():
            if status in {b"100", b"101", b"200"}:
                self.answered.set_result(None)
            else:
                self.answered.set_exception(BenchFailed(f"{self.kind} was answered {status.decode('ascii')}"))

    def _over(self) -> None:
        if not self.ended.done():
            self.ended_at = time.perf_counter()
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio)
        """Cut, or closed."""
        if not self.answered.done():
            self.answered.set_exception(BenchFailed(f"{self.kind} was cut before it was answered"))
        self._over()
