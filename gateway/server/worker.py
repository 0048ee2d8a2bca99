"""One worker: a process with its own listening socket on the shared port, a gateway generation and many connections.

The supervisor talks to it by signals (SIGHUP reload, SIGTERM drain) and hears of it through one pipe: a line for each
event, and a heartbeat. A worker that stops beating (a callback that never ends) is killed and replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from mitmproxy.proxy.layers.tls import TlsFailedClientHook  # noqa: F401  (imported before gc.freeze)

from gateway.config import Config, ConfigError, Limits, load
from gateway.core import paths as own
from gateway.core.canonical import client_network
from gateway.core.ports.stores import subject_key
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.edge.mitm.connection import ClientConnection
from gateway.edge.mitm.exchange import Exchange
from gateway.edge.mitm.reevaluation import ContinuousEvaluation
from gateway.edge.mitm.sockets import listening_socket
from gateway.edge.mitm.tls import ServerContexts
from gateway.edge.mitm.turn_budget import TurnScheduler
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.endpoints import app as endpoints
from gateway.endpoints import dbsc as bound
from gateway.endpoints import factors as stepup
from gateway.endpoints import login as people
from gateway.endpoints import logout as backchannel
from gateway.endpoints import ssf as signals
from gateway.endpoints.pages import Pages
from gateway.identity.sessions.login_sessions import LoginSession
from gateway.observability import log
from gateway.observability.metrics import Metrics, use_directory
from gateway.pipeline.headers import Forward
from gateway.pipeline.pipeline import Pipeline
from gateway.replies.rendering import Branding, introduce
from gateway.server.loop_watch import LoopWatch
from gateway.wiring import Gateway, ProcessResources

HEARTBEAT_S = 1.0
_GUESSED = frozenset({"factor_invalid", "factor_replayed", "factor_locked"})
_SWEEP_S = 0.5
# Of bodies that wait to be whole, in all connections of one worker.
BUFFERED_BYTES = 256 << 20
_REFRESH_S = 30.0
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Generation:
    """Everything that one version of the configuration brought to life; swapped as a whole."""

    gateway: Gateway
    contexts: ServerContexts
    upstreams: dict[str, UpstreamPool]
    endpoints: Any

    @property
    def pipeline(self) -> Pipeline:
        """The data path."""
        return self.gateway.pipeline

    @property
    def config(self) -> Config:
        """The configuration it was made from."""
        return self.gateway.config


async def build(config: Config, shared: ProcessResources) -> Generation:
    """A whole new generation, or an exception and nothing changed."""
    gateway = await Gateway.build(config, shared)
    contexts = ServerContexts([(item.certificate, item.key) for item in config.tls], config.devices.ca)
    upstreams = {name: UpstreamPool(name, settings) for name, settings in gateway.upstreams.items()}
    more = own_paths(gateway)
    routes = backchannel.routes(gateway.people.logouts, gateway.people.hooks)
    home = config.origin(config.host) + own.ME if gateway.people.sign_ins is not None else ""
    introduce(Branding(config.name, config.contact, home))
    return Generation(gateway, contexts, upstreams, endpoints.build(gateway.endpoints, more=more, routes=routes))


def own_paths(gateway: Gateway) -> list[endpoints.Endpoint]:
    """The paths between machines, and those for people with a browser where anybody can sign in."""
    config, parts, told = gateway.config, gateway.people.sign_ins, gateway.signals
    origin = config.origin(config.host)
    found = signals.paths(origin, told.receivers, told.transmitter, told.streams, told.reports)
    if parts is None:
        return found
    recorder = gateway.pipeline.recorder
    pages = Pages(issuers=[issuer.issuer for issuer in config.issuers if issuer.login is not None])

    def note(event: Mapping[str, Any]) -> None:
        recorder.record({"v": 1, "ts": time.time(), **event})

    def failed(reason: str, facts: RequestFacts, login: LoginSession) -> None:
        if reason in _GUESSED:
            account = subject_key(login.identity.issuer, login.identity.subject)
            network = gateway.pipeline.networks.look(facts.client_ip)
            gateway.pipeline.assessor.failed(reason, facts.client_ip, network, account=account, session_id=login.id)

    keys = parts.keys
    who = people.People(config.host, origin, parts.login, parts.handover, parts.own, pages, note, keys)
    tell = told.transmitter.tell
    what = stepup.SecondFactors(
        config.host, parts.login, parts.step_ups, parts.factors, pages, note, keys, tell, failed
    )
    return [*found, *people.paths(who), *stepup.paths(what), *(bound.paths(keys) if keys is not None else ())]


class EdgeHost:
    """What the connections of one worker share. Meets what `edge.mitm` asks of it."""

    def __init__(self, generation: Generation, metrics: Metrics) -> None:
        self.gateway = generation
        self.metrics = metrics
        self.draining = False
        self.buffered_bytes = 0
        self.scheduler = TurnScheduler()
        self.connections: set[ClientConnection] = set()
        self._by_client: collections.Counter[str] = collections.Counter()
        self._log = log.get("edge")
        self._watchers: list[asyncio.Task[None]] = []
        self._watch()

    @property
    def limits(self) -> Limits:
        """The current limits."""
        return self.gateway.config.limits

    async def swap(self, generation: Generation) -> None:
        """Put a new generation in place; requests under way end under the one that judged them."""
        old, self.gateway = self.gateway, generation
        self._watch()
        for upstream in old.upstreams.values():
            upstream.close()
        await asyncio.sleep(0)
        self._spawn_later(old.gateway.close)

    def _spawn_later(self, close: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(self.gateway.pipeline.deadline_s)
            await close()
            # What a generation leaves behind goes in rings, and has lived too long for the collector to come by soon.
            gc.collect()

        self._retiring = asyncio.ensure_future(later())

    def _watch(self) -> None:
        for task in self._watchers:
            task.cancel()
        self._watchers = [asyncio.ensure_future(upstream.watch()) for upstream in self.gateway.upstreams.values()]
        self._watchers += [asyncio.ensure_future(loop) for loop in self.gateway.gateway.background()]

    # ---- connections ----

    def arrived(self, connection: ClientConnection) -> bool:
        """Count a connection in; False over a limit."""
        limits = self.limits
        if self.draining or len(self.connections) >= limits.connections:
            return False
        client = client_network(connection.ip)
        if self._by_client[client] >= limits.connections_per_client:
            self.metrics.handshake("too_many")
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
        client = client_network(connection.ip)
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
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else "?"
        self._log.error("connection_crashed", error=type(error).__name__, at=where)

    def buffer(self, exchange: Exchange, size_bytes: int) -> bool:
        """Count bytes of a body that is held in memory; False when this worker holds too many."""
        exchange.buffered_bytes += size_bytes
        self.buffered_bytes += size_bytes
        return self.buffered_bytes <= BUFFERED_BYTES

    def unbuffer(self, exchange: Exchange) -> None:
        """The exchange's body is held no longer."""
        self.buffered_bytes -= exchange.buffered_bytes
        exchange.buffered_bytes = 0

    def finished(self, exchange: Exchange) -> None:
        """An exchange is over."""
        self.unbuffer(exchange)
        verdict = exchange.verdict
        if isinstance(verdict, Forward) and exchange.status and not verdict.route.zero_log:
            self.metrics.responded(verdict.route.service, exchange.status, time.monotonic() - exchange.started)

    def upstream_failed(self, upstream: UpstreamPool, address: tuple[str, int], error: str) -> None:
        """An upstream could not be reached."""
        if upstream.name not in self.gateway.gateway.zero_log_upstreams:
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
            for upstream in self.gateway.upstreams.values():
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
        until = time.monotonic() + self.gateway.config.listen.drain_s
        while self.connections and time.monotonic() < until:
            for connection in list(self.connections):
                if not connection.exchanges and connection.established and connection.closing_since is None:
                    connection.goodbye()
            await asyncio.sleep(0.05)
        for connection in list(self.connections):
            connection.transport.abort()


class SupervisorChannel:
    """The worker's line to its supervisor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, kind: str, **facts: Any) -> None:
        """One line of JSON. A supervisor that is gone ends the worker."""
        try:
            os.write(self._fd, json.dumps({"kind": kind, **facts}).encode() + b"\n")
        except OSError:
            os.kill(os.getpid(), signal.SIGTERM)

    def beat(self) -> None:
        """Say that the loop lives."""
        self.say("beat")


async def _main(config_path: Path, port: int, pipe: SupervisorChannel) -> None:
    loop = asyncio.get_running_loop()
    config = load(config_path)
    metrics = Metrics(edge="mitm")
    shared = await ProcessResources.open(config, metrics)
    edge = EdgeHost(await build(config, shared), metrics)
    stop, reload = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    sock = listening_socket(config.listen.address, port)
    server = await loop.create_server(lambda: ClientConnection(edge), sock=sock, backlog=_BACKLOG)
    watch = ContinuousEvaluation(edge, shared.store)

    def ended(task: asyncio.Task[None]) -> None:
        """What must go on for ever ended: this worker cannot do its work, another one takes its place."""
        if not task.cancelled() and (error := task.exception()) is not None:
            edge.crashed(error)
            stop.set()

    alive = LoopWatch(pipe.beat, HEARTBEAT_S).tick()
    loops = (alive, edge.sweep(), _reloads(config_path, edge, watch, shared, reload, pipe), _refresh(edge))
    tasks = [asyncio.ensure_future(work) for work in (*loops, watch.follow(), watch.turns())]
    for task in tasks:
        task.add_done_callback(ended)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    pipe.say("ready", policy=edge.gateway.gateway.policy_version)
    await stop.wait()
    server.close()
    await edge.drain()
    for task in tasks:
        task.cancel()
    await edge.gateway.gateway.close()
    await shared.close()


async def _reloads(
    config_path: Path,
    edge: EdgeHost,
    watch: ContinuousEvaluation,
    shared: ProcessResources,
    reload: asyncio.Event,
    pipe: SupervisorChannel,
) -> None:
    while True:
        await reload.wait()
        reload.clear()
        try:
            generation = await build(load(config_path), shared)
        except (ConfigError, OSError, ValueError, RuntimeError, Exception) as error:  # noqa: BLE001
            # The old state stays whatever is wrong with the new one.
            edge.metrics.reloaded("refused")
            pipe.say("refused", error=str(error)[:2000])
            continue
        await edge.swap(generation)
        edge.metrics.reloaded("ok")
        pipe.say("reloaded", policy=generation.gateway.policy_version)
        await watch.everything()


async def _refresh(edge: EdgeHost) -> None:
    while True:
        await asyncio.sleep(_REFRESH_S)
        with contextlib.suppress(OSError):
            await edge.gateway.gateway.refresh()


def main() -> None:
    """`python -O -m gateway.server.worker`: started by the supervisor only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pipe", type=int, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    arguments = parser.parse_args()
    log.configure()
    use_directory(arguments.metrics, fresh=False)
    pipe = SupervisorChannel(arguments.pipe)
    try:
        uvloop.run(_main(arguments.config, arguments.port, pipe))
    except Exception as error:  # noqa: BLE001  (said to the supervisor, which decides)
        pipe.say("failed", error=f"{type(error).__name__}: {error}"[:2000])
        sys.exit(1)


if __name__ == "__main__":
    main()
