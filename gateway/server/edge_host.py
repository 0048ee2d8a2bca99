"""Edge host: what all connections of one worker share: the generation that serves, limits, counts, draining.

A reload swaps the generation; requests under way end under the one that judged them.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from gateway.config import Limits
from gateway.core.canonical import client_network, is_within
from gateway.core.routes import Route
from gateway.edge.mitm.connection import ClientConnection
from gateway.edge.mitm.exchange import Exchange
from gateway.edge.mitm.memory_ledger import MemoryLedger, MemoryLimits
from gateway.edge.mitm.turn_budget import TurnScheduler
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.edge.mitm.upstream_slots import Slots
from gateway.endpoints.rate_limit import RateLimiter
from gateway.observability import log
from gateway.observability.metrics import Metrics
from gateway.pipeline.headers import Forward
from gateway.pipeline.pipeline import Pipeline
from gateway.wiring import Generation

_SWEEP_S = 0.5


class EdgeHost:
    """What the connections of one worker share. It is what `edge.mitm` asks for its host."""

    def __init__(self, generation: Generation, metrics: Metrics) -> None:
        self.generation = generation
        self.metrics = metrics
        self.draining = False
        self.memory = MemoryLedger(self._memory_limits, metrics.buffered)
        self.scheduler = TurnScheduler()
        self.client_slots = Slots(lambda: self.limits.upstream_connections_per_client)
        self.all_slots = Slots(lambda: self.limits.upstream_connections)
        self.connections: set[ClientConnection] = set()
        self._by_client: collections.Counter[str] = collections.Counter()
        self._refusals = RateLimiter(burst=1, per_s=1 / 60)
        self._log = log.get("edge")
        self._watchers: list[asyncio.Task[None]] = []
        self._watch()

    @property
    def limits(self) -> Limits:
        """The current limits."""
        return self.generation.config.limits

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline of the generation that serves."""
        return self.generation.pipeline

    @property
    def rejudge_s(self) -> float:
        """After so many seconds an open request is judged again in any case."""
        return self.limits.rejudge_s

    def open_requests(self) -> Iterator[Exchange]:
        """Every request that is open or being judged."""
        return (exchange for connection in self.connections for exchange in connection.exchanges.values())

    def record_cut(self, reason: str) -> None:
        """Count a request that was cut."""
        self.metrics.cut(reason)

    async def swap(self, generation: Generation) -> None:
        """Put a new generation in place; requests under way end under the one that judged them."""
        old, self.generation = self.generation, generation
        self._watch()
        for upstream in old.upstreams.values():
            upstream.close()
        await asyncio.sleep(0)
        self._spawn_later(old.close)

    def _spawn_later(self, close: Callable[[], Awaitable[None]]) -> None:
        async def later() -> None:
            await asyncio.sleep(self.generation.pipeline.deadline_s)
            await close()
            # What a generation leaves behind is cyclic, and has lived too long for the collector to come by soon.
            gc.collect()

        self._retiring = asyncio.ensure_future(later())

    def _watch(self) -> None:
        for task in self._watchers:
            task.cancel()
        self._watchers = [asyncio.ensure_future(upstream.watch()) for upstream in self.generation.upstreams.values()]
        self._watchers += [asyncio.ensure_future(loop) for loop in self.generation.background()]

    # ---- connections ----

    def client_key(self, ip: str, port: int) -> str:
        """Whom a connection is counted for. A trusted proxy is no client: each of its connections stands for itself."""
        is_proxy = is_within(ip, self.generation.config.trusted_proxies)
        return f"{ip} {port}" if is_proxy else client_network(ip)

    def is_balancer(self, ip: str) -> bool:
        """Whether a peer must begin with the PROXY protocol."""
        config = self.generation.config
        return config.listen.proxy_protocol and is_within(ip, config.trusted_proxies)

    def arrived(self, connection: ClientConnection) -> bool:
        """Count a connection in; False over a limit."""
        limits = self.limits
        client = connection.client_key
        if self.draining:
            return False
        if len(self.connections) >= limits.connections or self._by_client[client] >= limits.connections_per_client:
            self.metrics.handshake("too_many")
            self._refused(connection, "too_many")
            return False
        self.connections.add(connection)
        self._by_client[client] += 1
        self.metrics.connections(1)
        return True

    def left(self, connection: ClientConnection) -> None:
        """Count a connection out."""
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        self.metrics.connections(-1)
        client = connection.client_key
        self._by_client[client] -= 1
        if self._by_client[client] <= 0:
            del self._by_client[client]

    def handshake(self, *, ok: bool) -> None:
        """A TLS handshake ended."""
        self.metrics.handshake("ok" if ok else "failed")

    # ---- what happened ----

    def crashed(self, error: BaseException) -> None:
        """A bug ended a connection; only the kind of error and its place are logged."""
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        position = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else "?"
        self._log.error("connection_crashed", error=type(error).__name__, at=position)

    def _memory_limits(self) -> MemoryLimits:
        limits = self.limits
        return MemoryLimits(
            connection=limits.buffer_mib_per_connection << 20,
            client=limits.buffer_mib_per_client << 20,
            worker=limits.buffer_mib << 20,
        )

    def cut_for_memory(self, connection: ClientConnection) -> None:
        """A connection holds more than it may and is cut."""
        self.metrics.connection_cut("memory")
        self._refused(connection, "memory")

    def _refused(self, connection: ClientConnection, reason: str) -> None:
        """A line for a connection that was refused or cut: for each client at most one a minute.

        Where a service is zero-log nobody can tell yet whether the client came for it: no address is written.
        """
        if self._refusals.take(connection.ip):
            client = "" if self.generation.zero_log_upstreams else connection.client_key
            self._log.warning("connection_refused", reason=reason, client=client)

    def finished(self, exchange: Exchange) -> None:
        """An exchange is over."""
        verdict = exchange.verdict
        if isinstance(verdict, Forward) and exchange.status and not verdict.route.zero_log:
            self.metrics.responded(verdict.route.service, exchange.status, time.monotonic() - exchange.started)

    def upstream_failed(self, upstream: UpstreamPool, address: tuple[str, int], error: str) -> None:
        """An upstream could not be reached."""
        if upstream.name not in self.generation.zero_log_upstreams:
            self._log.warning("upstream_unreachable", service=upstream.name, port=address[1], error=error[:200])

    def upstream_broke(self, route: Route) -> None:
        """An upstream broke off its answer."""
        if not route.zero_log:
            self._log.warning("upstream_broken", service=route.service)

    async def sweep(self) -> None:
        """For ever: end what takes too long, close pooled connections that are too old."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._check_connections(time.monotonic())
            for upstream in self.generation.upstreams.values():
                upstream.prune()

    def _check_connections(self, now: float) -> None:
        """A function of its own: the sweep's frame lives for ever, and would keep the last connection it has seen."""
        for connection in list(self.connections):
            try:
                connection.check(now)
            except Exception as error:  # noqa: BLE001  (one connection's flaw must not end the others)
                self.crashed(error)
                connection.transport.abort()

    async def drain(self) -> None:
        """Stop taking requests, let the open ones end, close what is left when the time is over."""
        self.draining = True
        until = time.monotonic() + self.generation.config.listen.drain_s
        while self.connections and time.monotonic() < until:
            for connection in list(self.connections):
                if not connection.exchanges and connection.established and connection.closing_since is None:
                    connection.goodbye()
            await asyncio.sleep(0.05)
        for connection in list(self.connections):
            connection.transport.abort()
