"""Supervisor: starts the workers, replaces those that end or hang, reloads, drains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.config import Config, ConfigError
from gateway.observability import log
from gateway.observability.metrics import Metrics, use_directory
from gateway.server.admin_listener import AdminListener
from gateway.server.descriptors import load_fitting
from gateway.server.hardening import harden_process
from gateway.server.ports import reserve_port
from gateway.server.reload import reload_on_change
from gateway.wiring import Housekeeping

_HUNG_S = 15.0
_START_S = 60.0
_START_RETRY_S = 1.0
_RESTART_PAUSE_S = 0.05
_HOUSEKEEPING_S = 10.0


class WorkerProcess:
    """One worker process, as the supervisor sees it."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, pipe: int) -> None:
        self.number = number
        self.process = process
        self.ready = asyncio.Event()
        self.beat_at = time.monotonic()
        self.error = ""
        self.policy = ""
        self.generation = 0
        self.is_accepting = True
        self._pipe = pipe
        self._rest = b""
        asyncio.get_running_loop().add_reader(pipe, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, 65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close_pipe()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))

    def _handle(self, message: dict[str, Any]) -> None:
        self.beat_at = time.monotonic()
        kind = message["kind"]
        self.is_accepting = message.get("accepting", self.is_accepting)
        if kind in {"ready", "reloaded"}:
            self.policy = message.get("policy", "")
            self.generation += 1
            self.error = ""
            self.ready.set()
        elif kind in {"refused", "failed"}:
            self.error = message.get("error", "")
            self.generation += 1

    def close_pipe(self) -> None:
        """Stop reading from a worker that has ended."""
        if self._pipe >= 0:
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1


class Supervisor:
    """Keeps `listen.workers` processes serving one port."""

    def __init__(self, config_path: Path, config: Config, metrics: Metrics, metrics_dir: Path) -> None:
        self.config_path = config_path
        self.config = config
        self.metrics = metrics
        self.metrics_dir = metrics_dir
        self.workers: dict[int, WorkerProcess] = {}
        self.stopping = asyncio.Event()
        self.is_broken = False
        self._log = log.get("supervisor")
        # Bound, never listening: it keeps the port ours while no worker is up, and finds a free one for port 0.
        self._reserved = reserve_port(config_path, "listen", config.listen.address, config.listen.port)
        self.port: int = self._reserved.getsockname()[1]

    async def start_worker(self, number: int) -> WorkerProcess:
        """Start one worker process."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        # A directory of its own, and none in the module path (-P): nobody's file becomes the worker's code.
        directory = self.metrics_dir / f"worker-{number}"
        directory.mkdir(mode=0o700, exist_ok=True)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-O",
                "-m",
                "gateway.server.worker",
                str(self.config_path.absolute()),
                "--port",
                str(self.port),
                "--pipe",
                str(write_end),
                "--metrics",
                str(self.metrics_dir),
                pass_fds=(write_end,),
                cwd=directory,
                stdin=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        worker = self.workers[number] = WorkerProcess(number, process, read_end)
        return worker

    async def run_worker(self, number: int) -> None:
        """For ever: start a worker, wait for its end, start the next one."""
        while not self.stopping.is_set():
            try:
                worker = await self.start_worker(number)
            except OSError as error:
                # No process or no memory for one: the others serve on meanwhile.
                self._log.error("worker_not_started", worker=number, error=error.strerror or type(error).__name__)
                await asyncio.sleep(_START_RETRY_S)
                continue
            started = time.monotonic()
            watchdog = asyncio.ensure_future(self._watch_heartbeat(worker))
            code = await worker.process.wait()
            watchdog.cancel()
            worker.close_pipe()
            self.metrics.mark_dead(worker.process.pid)
            if self.stopping.is_set():
                return
            self.metrics.worker_restarted()
            self._log.error("worker_ended", worker=number, code=code, error=worker.error)
            await asyncio.sleep(_RESTART_PAUSE_S if time.monotonic() - started > 1 else 1.0)

    async def _watch_heartbeat(self, worker: WorkerProcess) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.ready.wait(), _START_S)
        while time.monotonic() - worker.beat_at < _HUNG_S:  # noqa: ASYNC110  (the time of the last beat is what counts)
            await asyncio.sleep(0.5)
        self._log.error("worker_hung", worker=worker.number)
        worker.process.kill()

    async def reload(self) -> str:
        """Check the new configuration, then tell every worker; the error's text, "" when all went well."""
        try:
            config = load_fitting(self.config_path)
        except ConfigError as error:
            self._log.error("reload_refused", error=str(error))
            self.metrics.reloaded("refused")
            return str(error)
        if (config.listen.address, config.listen.port) != (self.config.listen.address, self.config.listen.port):
            self._log.warning("restart_needed", key="listen")
        before = {number: worker.generation for number, worker in self.workers.items()}
        for worker in self.workers.values():
            if worker.process.returncode is None:
                worker.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + _START_S
        for number, worker in self.workers.items():
            while worker.generation == before.get(number, 0) and time.monotonic() < until:
                if worker.process.returncode is not None:
                    break
                await asyncio.sleep(0.02)
        refused = next((worker.error for worker in self.workers.values() if worker.error), "")
        if refused:
            self._log.error("reload_refused", error=refused)
        else:
            self.config = config
            self._log.info("reloaded", policy=self.policy)
        return refused

    def task_ended(self, task: asyncio.Task[None]) -> None:
        """A task that should run for ever has ended: without it nothing is reloaded or started again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.is_broken = True
            self._log.error("supervisor_failed", error=type(error).__name__)

    def log_serving(self, admin_port: int) -> None:
        """Log that it serves, and where."""
        config = self.config
        self._log.info(
            "serving",
            listen=f"{config.listen.address}:{self.port}",
            admin=f"{config.admin.address}:{admin_port}",
            workers=config.listen.workers,
            services=len(config.services),
            policy=self.policy,
        )

    def log_stopping(self) -> None:
        """Log that requests under way get their time, and new ones are refused."""
        self._log.info("stopping", drain_s=self.config.listen.drain_s)

    @property
    def policy(self) -> str:
        """The policy version in use."""
        return next((worker.policy for worker in self.workers.values()), "")

    @property
    def is_ready(self) -> bool:
        """Whether every worker serves, and has file descriptors for further connections."""
        alive = [worker for worker in self.workers.values() if worker.process.returncode is None]
        return len(alive) >= self.config.listen.workers and all(
            worker.ready.is_set() and worker.is_accepting for worker in alive
        )

    async def stop(self) -> None:
        """Drain every worker; kill those that do not end."""
        self.stopping.set()
        for worker in self.workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()
        limit = self.config.listen.drain_s + 5
        for worker in self.workers.values():
            try:
                await asyncio.wait_for(worker.process.wait(), limit)
            except TimeoutError:
                worker.process.kill()
        self._reserved.close()


async def _serve(config_path: Path, config: Config, announce: Callable[[Supervisor, int], None] | None) -> int:
    with tempfile.TemporaryDirectory(prefix="gateway-metrics-") as folder:
        use_directory(Path(folder), fresh=True)
        metrics = Metrics(edge="mitm")
        supervisor = Supervisor(config_path, config, metrics, Path(folder))
        admin = AdminListener(config_path, config)
        housekeeping = await Housekeeping.open(config)
        loop = asyncio.get_running_loop()
        stop, hangup = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        runners = [asyncio.ensure_future(supervisor.run_worker(number)) for number in range(config.listen.workers)]
        admin.start(
            metrics=metrics.render,
            ready=lambda: supervisor.is_ready and housekeeping.is_healthy,
            policy=lambda: supervisor.policy,
        )
        tasks = [
            asyncio.ensure_future(reload_on_change(supervisor, hangup)),
            asyncio.ensure_future(_refresh_crl(housekeeping, supervisor)),
        ]
        for task in (*tasks, *runners):
            task.add_done_callback(supervisor.task_ended)
            task.add_done_callback(lambda _: stop.set())
        try:
            failed = await _first_start(supervisor, stop)
            if failed:
                print(f"The gateway cannot serve: {failed}", file=sys.stderr)  # noqa: T201
                return 1
            supervisor.log_serving(admin.port)
            if announce is not None:
                announce(supervisor, admin.port)
            await stop.wait()
            supervisor.log_stopping()
            return int(supervisor.is_broken)
        finally:
            await supervisor.stop()
            for task in (*tasks, *runners):
                task.cancel()
            admin.stop()
            await housekeeping.close()


async def _first_start(supervisor: Supervisor, stop: asyncio.Event) -> str:
    """Wait until every worker serves; the reason when one cannot."""
    until = time.monotonic() + _START_S
    while not stop.is_set() and time.monotonic() < until:
        if len(supervisor.workers) == supervisor.config.listen.workers and supervisor.is_ready:
            return ""
        error = next((worker.error for worker in supervisor.workers.values() if worker.error), "")
        if error:
            return error
        await asyncio.sleep(0.01)
    return "" if stop.is_set() else "the workers did not start in time"


async def _refresh_crl(housekeeping: Housekeeping, supervisor: Supervisor) -> None:
    while True:
        with contextlib.suppress(OSError):
            await housekeeping.refresh_crl()
            if (crl := supervisor.config.devices.crl_file) is not None:
                supervisor.metrics.crl_age(time.time() - crl.stat().st_mtime)
        await asyncio.sleep(_HOUSEKEEPING_S)


def serve(config_path: Path, announce: Callable[[Supervisor, int], None] | None = None) -> int:
    """Serve until SIGTERM. Raises ConfigError before anything is served; the exit code otherwise."""
    config = load_fitting(config_path)
    log.configure()
    harden_process()
    return asyncio.run(_serve(config_path, config, announce))
