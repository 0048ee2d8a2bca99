"""Real Redis servers for tests: plain, with TLS and an ACL user, with a replica and Sentinels; and a wire to cut.

Servers listen on 127.0.0.1 alone, keep what they acknowledge (`appendfsync always`) and end with their block.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

_MISSING = "redis-server is not installed; `sh tests/tools.sh` installs it"
_IS_THERE = shutil.which("redis-server") is not None
needs_redis = pytest.mark.skipif(not _IS_THERE and os.environ.get("CI") != "true", reason=_MISSING)
_HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as found:
        found.bind((_HOST, 0))
        return int(found.getsockname()[1])


class RedisProcess:
    """One server; `arguments` are its options. It can be killed and started again on the same port and files."""

    def __init__(self, folder: Path, arguments: Sequence[str] = (), *, port: int = 0, sentinel: bool = False) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.arguments = list(arguments)
        self.sentinel = sentinel
        self.log = folder / "log"
        self._popen: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    def start(self) -> None:
        assert _IS_THERE, _MISSING
        if self.sentinel:
            command = ["redis-server", str(self.folder / "sentinel.conf"), "--sentinel"]
        else:
            fixed = ["--bind", _HOST, "--dir", str(self.folder), "--save", "", "--repl-diskless-sync-delay", "0"]
            keeping = ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
            listens = [] if "--tls-port" in self.arguments else ["--port", str(self.port)]
            command = ["redis-server", *fixed, *listens, *keeping, *self.arguments]
        with self.log.open("ab") as sink:
            self._popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        until = time.monotonic() + 10
        while True:
            assert self._popen.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError), socket.create_connection((_HOST, self.port), timeout=1):
                if "--tls-port" in self.arguments or self.cli("PING").endswith("PONG"):  # else it is loading
                    return
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            self._popen = None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def forget(self) -> None:
        """Remove what it keeps on disk; it must not run."""
        for path in self.folder.glob("appendonlydir/*"):
            path.unlink()

    def cli(self, *arguments: str) -> str:
        """What redis-cli answers; only for servers without TLS."""
        command = ["redis-cli", "-h", _HOST, "-p", str(self.port), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[RedisProcess]:
    server = RedisProcess(folder, arguments)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def watched_pair(folder: Path, name: str = "gateway") -> Iterator[tuple[list[RedisProcess], list[RedisProcess]]]:
    """A master with two replicas (the first is the master), and three Sentinels that give it 500 ms."""
    servers = [RedisProcess(folder / f"redis-{number}") for number in range(3)]
    sentinels = [RedisProcess(folder / f"sentinel-{number}", sentinel=True) for number in range(3)]
    for replica in servers[1:]:
        replica.arguments += ["--replicaof", _HOST, str(servers[0].port)]
    try:
        for server in servers:
            server.start()
        wait_until(lambda: has_replicas(servers[0], 2))
        for sentinel in sentinels:
            (sentinel.folder / "sentinel.conf").write_text(
                f"bind {_HOST}\nport {sentinel.port}\ndir {sentinel.folder}\n"
                f"sentinel monitor {name} {_HOST} {servers[0].port} 2\n"
                f"sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 3000\n"
            )
            sentinel.start()
        for sentinel in sentinels:
            wait_until(lambda one=sentinel: _sees_others(one, name))
        yield servers, sentinels
    finally:
        for process in (*sentinels, *servers):
            process.kill()


def has_replicas(master: RedisProcess, count: int) -> bool:
    """Whether so many replicas have what is written now; redis-cli takes both commands over one connection."""
    command = ["redis-cli", "-h", _HOST, "-p", str(master.port)]
    done = subprocess.run(
        command, input=f"SET started 1\nWAIT {count} 100\n", capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.split()[-1:] == [str(count)]


def _sees_others(sentinel: RedisProcess, name: str) -> bool:
    lines = sentinel.cli("SENTINEL", "MASTER", name).splitlines()
    facts = dict(zip(lines[::2], lines[1::2], strict=False))
    return facts.get("num-other-sentinels") == "2" and facts.get("num-slaves") == "2"


def wait_until(is_so: object, timeout_s: float = 20.0) -> None:
    assert callable(is_so)
    until = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


class Cable:
    """A TCP proxy to a server: `cut` loses what is sent from then on and says nothing, `mend` carries it again."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._carries = asyncio.Event()
        self._carries.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.accepted = 0

    @property
    def address(self) -> str:
        return f"{_HOST}:{self.port}"

    def cut(self) -> None:
        self._carries.clear()

    def mend(self) -> None:
        """New connections work; those that were open stay dead, as after a firewall forgot them."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self._carries.set()

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[Cable]:
        server = await asyncio.start_server(self._accept, _HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        try:
            await self._carries.wait()
            far_reader, far_writer = await asyncio.open_connection(_HOST, self._target)
            self._writers.append(far_writer)
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._carries.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
