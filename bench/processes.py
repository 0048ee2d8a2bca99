"""The processes under measurement: starting and ending them, and what the kernel says they cost. Linux only."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_START_S, _STOP_S = 45.0, 5.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_USER_TIME, _SYSTEM_TIME = 11, 12  # fields of /proc/PID/stat, counted after the name
_RESET_PEAK = "5"  # what /proc/PID/clear_refs takes to forget VmHWM
_ENOUGH_FILES = 8192


class BenchFailed(Exception):
    """A measurement could not be made; the text says why."""


class Process:
    """A process of ours; a context manager that ends it. What it says on stderr stays in `log`."""

    def __init__(self, command: Sequence[str], log: Path, folder: Path) -> None:
        self._log = log
        dropped = {"SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE", "GATEWAY_CONFIG"}
        environment = {name: value for name, value in os.environ.items() if name not in dropped}
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        with log.open("wb") as sink:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            for pid in (*children(self._popen.pid), self._popen.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._popen.wait()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def wait_until(self, is_up: Callable[[], bool]) -> None:
        """Wait until it serves. Raises BenchFailed with the end of its log when it ends or takes too long."""
        until = time.monotonic() + _START_S
        while not is_up():
            if self._popen.poll() is not None or time.monotonic() > until:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise BenchFailed(f"{self._popen.args!r} did not start.\n{tail}")
            time.sleep(0.05)


def children(pid: int) -> list[int]:
    """The direct children of a process; empty for one that has ended."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in listed.split()]


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) * _TICK_S


def rss_kib(pid: int) -> int:
    """Resident memory in KiB."""
    return _status(pid, "VmRSS")


def peak_kib(pid: int) -> int:
    """The most resident memory since `forget_peak`, in KiB."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Begin a new peak at what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, encoding="ascii")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise BenchFailed(f"/proc/{pid}/status has no {name}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int, context: ssl.SSLContext | None, host: str, head: bytes = b"") -> bool:
    """Whether a request for `/` gets a 200; over TLS with a context."""
    request = b"GET / HTTP/1.1\r\nHost: %s:%d\r\n%sConnection: close\r\n\r\n" % (host.encode("ascii"), port, head)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            if context is None:
                plain.sendall(request)
                return plain.recv(4096).startswith(b"HTTP/1.1 200 ")
            with context.wrap_socket(plain, server_hostname=host) as secured:
                secured.sendall(request)
                return secured.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def allow_many_files() -> None:
    """Raise this process's limit of open files, for a thousand connections and what else is open."""
    import resource  # noqa: PLC0415  (Unix alone)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _ENOUGH_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_ENOUGH_FILES, hard), hard))
