"""How soon after a revocation the last byte was served, to a thousand open requests of five kinds.

One session after another is revoked, as an operator does it: two workers over SQLite, then two gateways over one Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import jwt

from bench.open_requests import KINDS, OpenRequest
from bench.processes import BenchFailed, Process, allow_many_files, answers, free_port
from bench.world import GRPC_HOST, HOST, World, enrol
from gateway.config import load
from gateway.demo.idp.provider import serving
from gateway.identity.bearer.sessions import session_id
from gateway.wiring import open_state

_SESSIONS = 200  # each with one request of every kind: a thousand
_AT_ONCE = 16
_PATIENCE_S = 10.0
_SETTLE_S = 2.0
_AFTER_S = 1.2
_GRPC = '  calls: {{host: {host}, upstream: {{urls: ["http://127.0.0.1:{port}"], protocol: h2}}, introspect: never,'
_GRPC += " allow: {{roles: [staff]}}}}\n"


async def measure(world: World, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of this group, with the raw ones below `revocation`."""
    allow_many_files()
    with serving() as provider, _services(world) as ports:
        proof = {"amr": ["pwd", "otp", "mfa"], "auth_time": int(time.time())}
        tokens = [provider.access_token("alice", jti=f"V2_{n}-at_{n}", **proof) for n in range(_SESSIONS)]
        world = replace(world, issuer=provider.issuer, token=tokens[0])
        say(f"{_SESSIONS * len(KINDS):,} open requests, two workers over SQLite")
        config = _config(world, "sqlite", ports, workers=2)
        with world.serving(config, "sqlite"):
            embedded = await _revoked(world, [config], tokens, say)
        shared: dict[str, list[float]] = {}
        with _redis(world.folder) as address:
            say("the same, two gateways over one Redis")
            store = f"store: {{kind: redis, address: {address}}}\n"
            configs = [_config(world, f"redis-{n}", ports, store=store) for n in range(2)]
            await enrol(world, configs[0])
            master = (world.folder / "redis-0" / "master.key").read_bytes()
            other = world.folder / "redis-1"
            other.mkdir(mode=0o700, exist_ok=True)
            (other / "master.key").write_bytes(master)
            (other / "master.key").chmod(0o600)
            with world.serving(configs[0], "redis-0"), world.serving(configs[1], "redis-1"):
                shared = await _revoked(world, configs, tokens, say)
    return {
        "revoke_p99_ms_sqlite": _p99(embedded),
        "revoke_p99_ms_redis": _p99(shared),
        "revocation": {"sqlite": _raw(embedded), "redis": _raw(shared)},
    }


async def _revoked(
    world: World, configs: Sequence[Path], tokens: Sequence[str], say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Milliseconds from the begin of a revocation to the end of each request of that session, by kind."""
    read = [load(config) for config in configs]
    open_requests = await _opened(world, [config.listen.port for config in read], tokens)
    say(f"{len(open_requests):,} are open")
    await asyncio.sleep(_SETTLE_S)
    by_token: dict[str, list[OpenRequest]] = {}
    for request in open_requests:
        by_token.setdefault(request.token, []).append(request)
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    store = (await open_state(read[-1])).store
    try:
        for token in random.sample(list(by_token), len(by_token)):
            claims = jwt.decode(token, options={"verify_signature": False})
            name = session_id(claims["iss"], claims["sub"], claims["jti"].partition("-at_")[0])
            started = time.perf_counter()
            if not await store.revoke_session(name, time.time(), "measured"):
                raise BenchFailed(f"there is no session {name}")
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.gather(*(request.ended for request in by_token[token]))
            for request in by_token[token]:
                took[request.kind].append((request.ended_at - started) * 1000)
        await asyncio.sleep(_AFTER_S)
        late = [request.kind for request in open_requests if request.last_byte_at > request.ended_at]
        if late:
            raise BenchFailed(f"bytes came after the end: {late}")
    finally:
        await store.close()
        for request in open_requests:
            request.transport.abort()
    return took


async def _opened(world: World, ports: Sequence[int], tokens: Sequence[str]) -> list[OpenRequest]:
    contexts = {}
    for kind in KINDS:
        contexts[kind] = world.client_context()
        contexts[kind].set_alpn_protocols(["h2" if kind in {"download", "grpc"} else "http/1.1"])
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(kind: str, token: str, port: int) -> OpenRequest:
        async with turn:
            request = OpenRequest(kind, GRPC_HOST if kind == "grpc" else HOST, token)
            await request.open(port, contexts[kind])
            return request

    wanted = [(kind, token) for token in tokens for kind in KINDS]
    return list(
        await asyncio.gather(*(one(kind, token, ports[n % len(ports)]) for n, (kind, token) in enumerate(wanted)))
    )


def _config(world: World, name: str, ports: tuple[int, int], *, workers: int = 1, store: str = "") -> Path:
    """A configuration with its own state folder unless everything is in the usual one."""
    path = world.write_config(name, ports[0], port=free_port(), admin_port=free_port(), workers=workers)
    text = path.read_text(encoding="utf-8") + _GRPC.format(host=GRPC_HOST, port=ports[1])
    path.write_text(store + (f"state: {name}\n" if store else "") + text, encoding="utf-8")
    return path


@contextlib.contextmanager
def _services(world: World) -> Iterator[tuple[int, int]]:
    ports = free_port(), free_port()
    command = [sys.executable, "-m", "bench.endless_services", *map(str, ports)]
    with Process(command, world.folder / "pouring.log", world.folder) as process:
        process.wait_until(lambda: answers(ports[0], None, HOST))
        yield ports


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        raise BenchFailed("redis-server is not installed; `sh tests/tools.sh` installs it where it may")
    home = folder / "redis-revocation"
    home.mkdir()
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(home), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always"]
    ping = ["redis-cli", "-p", str(port), "PING"]
    with Process(command, home / "log", home) as process:
        process.wait_until(lambda: subprocess.run(ping, capture_output=True, check=False).stdout == b"PONG\n")
        yield f"127.0.0.1:{port}"


def _p99(took: dict[str, list[float]]) -> float:
    return quantiles([value for values in took.values() for value in values], n=100)[98]


def _raw(took: dict[str, list[float]]) -> dict[str, Any]:
    every = [value for values in took.values() for value in values]
    return {
        "requests": len(every),
        "p50_ms": round(median(every), 1),
        "most_ms": round(max(every), 1),
        "p99_ms_by_kind": {kind: round(quantiles(values, n=100)[98], 1) for kind, values in took.items()},
    }
