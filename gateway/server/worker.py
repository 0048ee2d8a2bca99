"""Worker process: its own listening socket on the shared port, one generation, many connections.

The supervisor talks to it by signals (SIGHUP reload, SIGTERM drain) and reads one pipe: a line of JSON for each event,
and a heartbeat. A worker that stops beating (a callback that never ends) is killed and replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop
from mitmproxy.proxy.layers.tls import TlsFailedClientHook  # noqa: F401  (imported before gc.freeze)

from gateway.core.ports.stores import StoreDown
from gateway.edge.mitm.connection import ClientConnection
from gateway.edge.mitm.sockets import listening_socket
from gateway.observability import log
from gateway.observability.metrics import Metrics, use_directory
from gateway.pipeline.reevaluation import ContinuousEvaluation
from gateway.server.descriptors import are_exhausted, load_fitting
from gateway.server.edge_host import EdgeHost
from gateway.server.hardening import harden_process
from gateway.server.loop_watch import LoopWatch
from gateway.wiring import Generation, ProcessResources

HEARTBEAT_S = 1.0
_REFRESH_S = 30.0
_BACKLOG = 1024


class SupervisorChannel:
    """The worker's end of the pipe to its supervisor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, kind: str, **facts: Any) -> None:
        """One line of JSON. A supervisor that is gone ends the worker."""
        try:
            os.write(self._fd, json.dumps({"kind": kind, **facts}).encode() + b"\n")
        except OSError:
            os.kill(os.getpid(), signal.SIGTERM)

    def beat(self) -> None:
        """Send that the loop lives, and whether connections can be accepted."""
        self.send("beat", accepting=not are_exhausted())


async def _main(config_path: Path, port: int, pipe: SupervisorChannel) -> None:
    loop = asyncio.get_running_loop()
    config = load_fitting(config_path)
    metrics = Metrics(edge="mitm")
    shared = await ProcessResources.open(config, metrics)
    edge = EdgeHost(await Generation.build(config, shared), metrics)
    stop, reload = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    sock = listening_socket(config.listen.address, port)
    server = await loop.create_server(lambda: ClientConnection(edge), sock=sock, backlog=_BACKLOG)
    watch = ContinuousEvaluation(edge, shared.store)

    def ended(task: asyncio.Task[None]) -> None:
        """A task that should run for ever has ended: this worker drains, and another one takes its place."""
        if not task.cancelled() and (error := task.exception()) is not None:
            edge.crashed(error)
            stop.set()

    alive = LoopWatch(pipe.beat, HEARTBEAT_S).tick()
    loops = (alive, edge.sweep(), _reloads(config_path, edge, watch, shared, reload, pipe), _refresh(shared))
    tasks = [asyncio.ensure_future(work) for work in (*loops, watch.follow_changes(), watch.run_periodically())]
    for task in tasks:
        task.add_done_callback(ended)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    pipe.send("ready", policy=edge.generation.policy_version)
    await stop.wait()
    server.close()
    await edge.drain()
    for task in tasks:
        task.cancel()
    await edge.generation.close()
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
            generation = await Generation.build(load_fitting(config_path), shared)
        except Exception as error:  # noqa: BLE001  (the old generation serves on, whatever is wrong with the new one)
            edge.metrics.reloaded("refused")
            pipe.send("refused", error=str(error)[:2000])
            continue
        await edge.swap(generation)
        edge.metrics.reloaded("ok")
        pipe.send("reloaded", policy=generation.policy_version)
        await watch.reevaluate_all()


async def _refresh(shared: ProcessResources) -> None:
    while True:
        await asyncio.sleep(_REFRESH_S)
        with contextlib.suppress(OSError, StoreDown):
            await shared.asserter.refresh()


def main() -> None:
    """`python -O -m gateway.server.worker`: started by the supervisor only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pipe", type=int, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    arguments = parser.parse_args()
    harden_process()
    log.configure()
    use_directory(arguments.metrics, fresh=False)
    pipe = SupervisorChannel(arguments.pipe)
    try:
        uvloop.run(_main(arguments.config, arguments.port, pipe))
    except Exception as error:  # noqa: BLE001  (sent to the supervisor, which decides)
        pipe.send("failed", error=f"{type(error).__name__}: {error}"[:2000])
        sys.exit(1)


if __name__ == "__main__":
    main()
