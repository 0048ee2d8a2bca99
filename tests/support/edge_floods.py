"""Floods: what a hostile peer sends to keep the event loop to itself, and a bystander who measures."""

from __future__ import annotations

import asyncio
import select
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self

import h2.connection

from tests.support.edge_clients import Http1, dial
from tests.support.edge_process import EdgeProcess
from tests.support.edge_world import HOST

FLOOD_BYTES = 4 << 20
HEADERS, DATA, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 1, 0, 2, 3, 4, 6, 8, 9
GOAWAY = 7
END_STREAM, END_HEADERS = 1, 4
ENHANCE_YOUR_CALM = 11
WEBSOCKET_HEAD = (
    f"GET /ws HTTP/1.1\r\nhost: {HOST}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode("ascii")


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One HTTP/2 frame (RFC 9113 section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def request_block(method: str = "GET", path: str = "/") -> bytes:
    """A request's header block, for an HPACK decoder in any state."""
    fields = (":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields
    )


def preface() -> bytes:
    """What an HTTP/2 client says first."""
    client = h2.connection.H2Connection()
    client.initiate_connection()
    return client.data_to_send()


def fragment(data: bytes, *, opcode: int = 0, final: bool = False, masked: bool = True) -> bytes:
    """One short WebSocket frame (RFC 6455 section 5.2)."""
    mask = b"\0\0\0\0" if masked else b""
    return bytes([opcode | (0x80 if final else 0), len(data) | (0x80 if masked else 0)]) + mask + data


def rapid_resets(block: bytes) -> Iterator[bytes]:
    """Requests that are reset in the same breath (CVE-2023-44487)."""
    stream = 1
    while True:
        yield frame(HEADERS, block, flags=END_STREAM | END_HEADERS, stream=stream) + frame(
            RST_STREAM, b"\0\0\0\x08", stream=stream
        )
        stream += 2


def repeated(piece: bytes, size: int = FLOOD_BYTES) -> bytes:
    """So many copies that they are `size` bytes."""
    return piece * (size // len(piece))


class Flood:
    """A connection that sends all of `data` as fast as it is taken and reads what comes."""

    def __init__(
        self, process: EdgeProcess, alpn: str, data: bytes, *, record_bytes: int = 1 << 14, **how: Any
    ) -> None:
        self.sock = dial(process.port, process.certificates, alpn=[alpn], **how)
        self.sock.setblocking(False)
        self.data = memoryview(data)
        self.record_bytes = record_bytes
        self.received = b""
        self.sent = 0
        self.cut = False
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop and not self.cut:
            waiting = [self.sock] if self.sent < len(self.data) else []
            select.select([self.sock], waiting, [], 0.05)
            try:
                with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    data = self.sock.recv(1 << 16)
                    self.received = (self.received + data)[-4096:]
                    self.cut = not data
                if waiting:
                    for _ in range(64):
                        piece = self.data[self.sent : self.sent + self.record_bytes]
                        if not piece:
                            break
                        self.sent += self.sock.send(piece)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
            except OSError:
                self.cut = True

    @property
    def is_over(self) -> bool:
        """Whether everything is sent, or the connection was cut."""
        return self.cut or self.sent == len(self.data)

    @property
    def goaway(self) -> int | None:
        """The error code of the last GOAWAY frame in what was received."""
        at = self.received.rfind(bytes([GOAWAY, 0, 0, 0, 0, 0]))
        return int.from_bytes(self.received[at + 10 : at + 14]) if at >= 0 else None

    def close(self) -> None:
        self._stop = True
        self._thread.join(10)
        self.sock.close()


class Bystander:
    """Asks again and again on one connection, from a thread of its own, and notes how long each answer takes."""

    def __init__(self, process: EdgeProcess, path: str = "/bystander", pause_s: float = 0.02) -> None:
        self.client = Http1(process.port, process.certificates)
        self.path, self.pause_s = path, pause_s
        self.took_s: list[float] = []
        self.late_s: list[float] = []
        self.statuses: set[int] = set()
        self.failure = ""
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(30)
        self.client.close()

    def _run(self) -> None:
        while not self._stop:
            start = time.monotonic()
            try:
                self.statuses.add(self.client.ask(self.path).status)
            except (OSError, EOFError) as error:
                self.failure = repr(error)
                return
            finally:
                self.took_s.append(time.monotonic() - start)
            start = time.monotonic()
            time.sleep(self.pause_s)
            self.late_s.append(time.monotonic() - start - self.pause_s)

    def machine_s(self) -> float:
        """What the machine's other work adds to an answer that four threads in turn take part in."""
        return 4 * sorted(self.late_s)[int(len(self.late_s) * 0.95)] if self.late_s else 0.0

    def percentile_s(self, share: float) -> float:
        """The time within which this share of the answers came."""
        return sorted(self.took_s)[int(len(self.took_s) * share)]


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it happened in time."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


class HostileUpstream:
    """A service that answers `/bystander` well, and everything else with `data` until nobody takes it."""

    def __init__(self, data: bytes, *, http2: bool = False) -> None:
        self.data = data
        self.http2 = http2

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self.server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if self.http2:
                    await reader.readexactly(9)
                    writer.write(frame(SETTINGS))
                    await reader.readuntil(b"a.localhost")
                    writer.write(self.data)
                    await writer.drain()
                    await reader.read(-1)
                    return
                writer.write(self.data)
                await writer.drain()
        with suppress(OSError):
            writer.close()
