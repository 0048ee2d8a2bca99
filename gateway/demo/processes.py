"""Processes of the demo and of `gateway quickstart`: started in a folder, watched, ended one after the other."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

import gateway

SOURCE = Path(gateway.__file__).resolve().parent.parent
_START_S, _STOP_S = 45.0, 8.0
_TAIL_LINES = 15


class ProcessFailed(Exception):
    """A process did not start or has ended; the text ends with what it wrote last."""


class Processes:
    """Modules of ours as processes. Each has its stdout in `NAME.out` and its stderr in `NAME.log` below `logs`."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self._folder, self._logs = folder, logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def spawn(self, name: str, arguments: Sequence[str]) -> None:
        """Start `python -m ARGUMENTS` in the folder, in a session of its own."""
        with (self._logs / f"{name}.out").open("wb") as out, (self._logs / f"{name}.log").open("wb") as err:
            self._running[name] = subprocess.Popen(  # noqa: S603  (our own modules)
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self._folder,
                env=environment(),
                start_new_session=True,
            )

    def first_line(self, name: str) -> str:
        """The first line of a process's stdout, once it is there. Raises `ProcessFailed`."""
        out = self._logs / f"{name}.out"
        self.wait(name, lambda: "\n" in out.read_text(encoding="utf-8"))
        return out.read_text(encoding="utf-8").partition("\n")[0]

    def wait_ready(self, name: str, admin_port: int) -> None:
        """Wait until the gateway of this name says it is ready. Raises `ProcessFailed`."""
        self.wait(name, lambda: is_ready(admin_port))

    def wait(self, name: str, condition: Callable[[], bool]) -> None:
        """Wait for something that a process does. Raises `ProcessFailed` when it ends or takes too long."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            if condition():
                return
            self.check(name)
            time.sleep(0.02)
        raise ProcessFailed(f"{name} did not start in time.\n{self.tail(name)}")

    def named(self, name: str) -> subprocess.Popen[bytes]:
        """The process of this name that was started last."""
        return self._running[name]

    def check(self, name: str) -> None:
        """Raise `ProcessFailed` when the process has ended."""
        process = self._running[name]
        if process.poll() is not None:
            raise ProcessFailed(f"{name} ended with code {process.returncode}.\n{self.tail(name)}")

    def tail(self, name: str) -> str:
        """The last lines that a process wrote to stderr."""
        text = (self._logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def stop(self) -> None:
        """End every process, the last one first, with all that it has started."""
        for process in reversed(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        until = time.monotonic() + _STOP_S
        for process in reversed(self._running.values()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()


def is_ready(admin_port: int) -> bool:
    """Whether a gateway with this admin port answers that it is ready."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{admin_port}/readyz", trust_env=False, timeout=10).is_success
    return False


def reserve_port() -> socket.socket:
    """A free port of 127.0.0.1, bound and not listening, that a process of ours may share (SO_REUSEPORT)."""
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def environment() -> dict[str, str]:
    """This process's environment, without what the gateway refuses to start with, and with this tree to import from."""
    dropped = {"SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE", "GATEWAY_CONFIG"}
    path = os.pathsep.join(filter(None, (str(SOURCE), os.environ.get("PYTHONPATH"))))
    return {name: value for name, value in os.environ.items() if name not in dropped} | {"PYTHONPATH": path}
