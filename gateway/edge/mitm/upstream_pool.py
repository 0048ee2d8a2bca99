"""Upstreams: addresses with their health, verified TLS, a pool of idle connections, the request that is sent."""

from __future__ import annotations

import asyncio
import collections
import ssl
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mitmproxy import http

from gateway import config
from gateway.core.second_targets import in_terms_of
from gateway.edge.mitm import messages
from gateway.edge.mitm.upstream_slots import Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.edge.mitm.upstream_connections import UpstreamConnection
    from gateway.pipeline.headers import Forward

Address = tuple[str, int]
_POOL_SIZE = 64
_BENCH_S = 5.0


class UpstreamPool:
    """One service's own addresses. The healthy ones take turns; with none healthy all are tried."""

    def __init__(self, name: str, settings: config.Upstream) -> None:
        self.name = name
        self.settings = settings
        urls = [urlsplit(url) for url in settings.urls]
        if len({url.scheme for url in urls}) != 1:
            raise ValueError(f"the addresses of {name} mix http and https")
        self.tls = urls[0].scheme == "https"
        default_port = 443 if self.tls else 80
        self.addresses: list[Address] = [(url.hostname or "", url.port or default_port) for url in urls]
        self.authority = {
            address: url.netloc.rpartition("@")[2] for address, url in zip(self.addresses, urls, strict=True)
        }
        self.http2 = settings.protocol == "h2"
        self.context = self._context() if self.tls else None
        self.slots = Slots(lambda: settings.max_connections)
        self._turn = 0
        self._down_until: dict[Address, float] = {}
        self._idle: collections.deque[tuple[float, UpstreamConnection]] = collections.deque()
        self._closed = False

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.settings.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"] if self.http2 else ["http/1.1"])
        if self.settings.certificate:
            context.load_cert_chain(self.settings.certificate, self.settings.key)
        return context

    # ---- health ----

    def candidates(self) -> Iterator[Address]:
        """Addresses to try, best first; each call begins with the next one."""
        if len(self.addresses) == 1:
            yield self.addresses[0]
            return
        self._turn = (self._turn + 1) % len(self.addresses)
        turns = self.addresses[self._turn :] + self.addresses[: self._turn]
        now = time.monotonic()
        yield from sorted(turns, key=lambda address: self._down_until.get(address, 0.0) > now)

    def failed(self, address: Address) -> None:
        """An address did not answer: let it rest for a moment."""
        self._down_until[address] = time.monotonic() + _BENCH_S

    @property
    def healthy(self) -> int:
        """How many addresses are believed to answer."""
        now = time.monotonic()
        return sum(self._down_until.get(address, 0.0) <= now for address in self.addresses)

    async def watch(self) -> None:
        """Ask every address for the health path, for ever; below 500 is healthy."""
        health = self.settings.health
        if health is None:
            return
        while True:
            for address in self.addresses:
                if await self._probe(address, health):
                    self._down_until.pop(address, None)
                else:
                    self._down_until[address] = time.monotonic() + 3 * health.interval_s
            await asyncio.sleep(health.interval_s)

    async def _probe(self, address: Address, health: config.Health) -> bool:
        try:
            async with asyncio.timeout(health.timeout_s):
                if self.http2:
                    _, writer = await asyncio.open_connection(
                        *address, ssl=self.context, server_hostname=self.server_name
                    )
                    writer.close()
                    return True
                reader, writer = await asyncio.open_connection(
                    *address, ssl=self.context, server_hostname=self.server_name
                )
                try:
                    ask = f"GET {health.path} HTTP/1.1\r\nhost: {self.authority[address]}\r\nconnection: close\r\n\r\n"
                    writer.write(ask.encode("ascii"))
                    line = await reader.readline()
                finally:
                    writer.close()
                return line.startswith(b"HTTP/1.") and line[9:10] in {b"1", b"2", b"3", b"4"}
        except (OSError, TimeoutError, ValueError):
            return False

    # ---- connections ----

    @property
    def server_name(self) -> str | None:
        """The name the upstream's certificate must have, None to take each address's own."""
        return self.settings.server_name if self.tls else None

    def take(self, address: Address) -> UpstreamConnection | None:
        """An idle connection to `address` that is still good, None without one."""
        now = time.monotonic()
        for _ in range(len(self._idle)):
            since, leg = self._idle.pop()
            if now - since > self.settings.idle_s or not leg.usable:
                leg.abort()
            elif leg.address == address:
                return leg
            else:
                self._idle.appendleft((since, leg))
        return None

    def give(self, leg: UpstreamConnection) -> None:
        """Keep a clean idle connection for somebody else."""
        if self._closed:
            leg.abort()
            return
        if len(self._idle) >= _POOL_SIZE:
            self._idle.popleft()[1].abort()
        self._idle.append((time.monotonic(), leg))

    def close_one_idle(self) -> None:
        """Make room for a connection to another address."""
        if self._idle:
            self._idle.popleft()[1].abort()

    def prune(self) -> None:
        """Close what has been idle for too long."""
        now = time.monotonic()
        while self._idle and (now - self._idle[0][0] > self.settings.idle_s or not self._idle[0][1].usable):
            self._idle.popleft()[1].abort()

    def close(self) -> None:
        """Close every idle connection, now and later."""
        self._closed = True
        while self._idle:
            self._idle.popleft()[1].abort()

    # ---- the request ----

    def request(self, verdict: Forward, *, body_length: int | None) -> http.Request:
        """The request to send: the judged head, the gateway's own headers and this hop's framing.

        `body_length` is that of the body that will be sent, None for one of unknown length.
        """
        facts = verdict.facts
        host = (facts.authority or facts.host) if verdict.route.preserve_host else self.authority[self.addresses[0]]
        origin = f"{'https' if self.tls else 'http'}://{host}"
        headers = in_terms_of(origin, facts, verdict.headers)
        fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        if body_length is not None and (body_length or facts.method in {"POST", "PUT", "PATCH"}):
            fields.append((b"content-length", b"%d" % body_length))
        if self.http2:
            if facts.protocol == "grpc":
                fields.append((b"te", b"trailers"))
        else:
            fields.insert(0, (b"host", host.encode("ascii")))
            if body_length is None:
                fields.append((b"transfer-encoding", b"chunked"))
            if facts.protocol == "websocket":
                # No extension is agreed to: a compressed frame may be a thousand times its size.
                fields = [field for field in fields if field[0] != b"sec-websocket-extensions"]
                fields += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        return messages.request(
            facts.method.encode("ascii"),
            facts.target.encode("ascii"),
            fields,
            version=b"HTTP/2.0" if self.http2 else b"HTTP/1.1",
            authority=host.encode("ascii") if self.http2 else b"",
            scheme=b"https" if self.tls else b"http",
        )
