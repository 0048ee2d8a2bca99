"""Memory of a gateway worker: a thousand idle mTLS connections, and a download of 1 GiB."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from bench.processes import BenchFailed, allow_many_files, forget_peak, peak_kib, rss_kib
from bench.world import HOST, Serving, World

_CONNECTIONS, _AT_ONCE = 1_000, 20
_WARM_CONNECTIONS = 50
_DOWNLOAD_BYTES = 1 << 30
_PIECE_BYTES = 1 << 18
_SETTLE_S = 2.0

type _Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def measure(world: World, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of this group, with the raw ones below `memory`."""
    allow_many_files()
    with world.upstream() as upstream, world.gateway(upstream) as gateway:
        pid = gateway.pids[0]
        say("a download of 1 GiB")
        await _closed(await _opened(world, gateway, _WARM_CONNECTIONS))
        await asyncio.sleep(_SETTLE_S)
        before_kib = rss_kib(pid)
        forget_peak(pid)
        took_s = _download(world, gateway)
        growth_kib = peak_kib(pid) - before_kib
        say(f"{_CONNECTIONS:,} idle connections")
        steps_kib = [rss_kib(pid)]
        streams: list[_Stream] = []
        for _ in range(2):
            streams += await _opened(world, gateway, _CONNECTIONS // 2)
            await asyncio.sleep(_SETTLE_S)
            steps_kib.append(rss_kib(pid))
        await _closed(streams)
        await asyncio.sleep(_SETTLE_S)
        closed_kib = rss_kib(pid)
    return {
        "idle_conn_kib": (steps_kib[-1] - steps_kib[0]) / _CONNECTIONS,
        "download_rss_growth_mib": growth_kib / 1024,
        "memory": {
            "worker_rss_mib": round(before_kib / 1024, 1),
            "download_mib_per_s": round(_DOWNLOAD_BYTES / (1 << 20) / took_s),
            "rss_mib_at_0_500_1000_connections": [round(step / 1024, 1) for step in steps_kib],
            "rss_mib_after_closing": round(closed_kib / 1024, 1),
        },
    }


async def _opened(world: World, gateway: Serving, count: int) -> list[_Stream]:
    """Connections that have had one request each and stay open."""
    context, turn = world.client_context(), asyncio.Semaphore(_AT_ONCE)
    request = b"GET / HTTP/1.1\r\nHost: %s:%d\r\n%s\r\n" % (HOST.encode("ascii"), gateway.port, world.authorization)

    async def one() -> _Stream:
        async with turn:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", gateway.port, ssl=context, server_hostname=HOST, limit=8192
            )
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 ") or await reader.readexactly(2) != b"ok":
                raise BenchFailed(f"the gateway answered {head[:40]!r}")
            return reader, writer

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def _closed(streams: list[_Stream]) -> None:
    for _, writer in streams:
        writer.close()
    for _, writer in streams:
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _download(world: World, gateway: Serving) -> float:
    """Fetch the whole body and let it go; how many seconds it took."""
    request = b"GET /bytes/%d HTTP/1.1\r\nHost: %s:%d\r\n%sConnection: close\r\n\r\n"
    request %= (_DOWNLOAD_BYTES, HOST.encode("ascii"), gateway.port, world.authorization)
    started, received, piece = time.monotonic(), 0, bytearray(_PIECE_BYTES)
    with (
        socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as plain,
        world.client_context().wrap_socket(plain, server_hostname=HOST) as secured,
        contextlib.suppress(ssl.SSLEOFError),
    ):
        secured.sendall(request)
        while count := secured.recv_into(piece):
            received += count
    if received < _DOWNLOAD_BYTES:
        raise BenchFailed(f"the download ended after {received:,} bytes")
    return time.monotonic() - started
