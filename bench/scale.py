"""What a decision costs when Redis holds a million sessions and a hundred thousand devices, and what they take there.

Two Redis servers, one with a thousand of each, serve the same requests in turn: 256 sessions of one person, each with
its own token, over the one enrolled device. Everything is written through the store's own methods.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.decision import Case, as_in_a_worker, judged, requests_of
from bench.processes import BenchFailed, Process, free_port
from bench.world import World
from gateway.adapters.redis.documents import RedisDocuments
from gateway.adapters.redis.store import RedisStore
from gateway.config import StateStore, load
from gateway.core.ports.stores import DeviceRecord, SessionRecord
from gateway.demo.idp.provider import serving
from gateway.observability.metrics import Metrics, use_directory
from gateway.pipeline.pipeline import Pipeline
from gateway.wiring import Generation, ProcessResources

_FEW, _SESSIONS, _DEVICES = 1_000, 1_000_000, 100_000
_TOKENS = 256
_ROUNDS, _ROUND_CALLS, _WARM_CALLS = 10, 1_500, 2_000
_AT_ONCE = 2_000
_LOAD_LIMIT_S = 120
_PATIENCE_MS = 5_000  # while loading, and so that a busy machine does not end the measurement


async def measure(world: World, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of this group, with the raw ones below `scale`."""
    use_directory(world.folder / "metrics", fresh=True)
    async with AsyncExitStack() as stack:
        provider = stack.enter_context(serving())
        world = replace(world, issuer=provider.issuer)
        proof = {"amr": ["pwd", "otp", "mfa"], "auth_time": int(time.time())}
        tokens = [provider.access_token("alice", jti=f"V2_{n}-at_{n}", **proof) for n in range(_TOKENS)]
        cases = [case for token in tokens for case in requests_of(replace(world, token=token), 1)]
        metrics = Metrics()
        few, few_store = await _gateway(world, metrics, "few", stack)
        many, many_store = await _gateway(world, metrics, "many", stack)
        await _fill(few_store, _FEW, _FEW)
        say(f"{_SESSIONS:,} sessions and {_DEVICES:,} devices into Redis")
        filled = await _fill(many_store, _SESSIONS, _DEVICES)
        if filled["load_s"] > _LOAD_LIMIT_S:
            say(f"[yellow]loading took {filled['load_s']:.0f} s[/]")
        say(f"{_ROUNDS * _ROUND_CALLS:,} decisions beside {_FEW:,} of each, in turn with as many beside all")
        small, large = await _in_turn(few, many, cases)
        lookups = await _lookups(many_store)
    return {
        "scale_factor_1m": median(large) / median(small),
        "store_bytes_per_session": filled["bytes_per_session"],
        "scale": {
            "few_p50_us": round(median(small), 1),
            "many_p50_us": round(median(large), 1),
            "many_p99_us": round(quantiles(large, n=100)[98], 1),
            "lookup_p50_us": round(median(lookups), 1),
            "bytes_per_device": round(filled["bytes_per_device"]),
            "load_s": round(filled["load_s"], 1),
        },
    }


async def _gateway(world: World, metrics: Metrics, name: str, stack: AsyncExitStack) -> tuple[Pipeline, RedisStore]:
    """A gateway whose state is in a Redis of its own, with the enrolled device."""
    settings = StateStore(
        kind="redis", address=stack.enter_context(_redis(world.folder / f"redis-{name}")), timeout_ms=_PATIENCE_MS
    )
    store = RedisStore(settings, bytes(32), world.folder / f"redis-{name}.epoch")
    stack.push_async_callback(store.close)
    await store.open()
    config = load(world.write_config(f"scale-{name}", services=[("s0", "s0.bench.localhost", ("staff",))]))
    shared = await ProcessResources.open(config, metrics)
    stack.push_async_callback(shared.close)
    for record in await shared.store.devices():
        await store.add_device(record)
    generation = await Generation.build(config, replace(shared, store=store, documents=RedisDocuments(store)))
    stack.push_async_callback(generation.close)
    return generation.pipeline, store


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """The address of a server that keeps what it is given."""
    if shutil.which("redis-server") is None:
        raise BenchFailed("redis-server is not installed; `sh tests/tools.sh` installs it where it may")
    folder.mkdir()
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]
    ping = ["redis-cli", "-p", str(port), "PING"]
    with Process(command, folder / "log", folder) as process:
        process.wait_until(lambda: subprocess.run(ping, capture_output=True, check=False).stdout == b"PONG\n")
        yield f"127.0.0.1:{port}"


async def _fill(store: RedisStore, sessions: int, devices: int) -> dict[str, float]:
    """Write so many records; the seconds that took and the bytes that each takes."""
    now = time.time()
    started = time.perf_counter()
    before = await _used(store)
    for start in range(0, sessions, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, sessions))
        await asyncio.gather(*(store.put_session(_session(number, now)) for number in numbers))
    between = await _used(store)
    for start in range(0, devices, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, devices))
        await asyncio.gather(*(store.add_device(_device(number, now)) for number in numbers))
    after = await _used(store)
    return {
        "load_s": time.perf_counter() - started,
        "bytes_per_session": (between - before) / sessions,
        "bytes_per_device": (after - between) / devices,
    }


def _session(number: int, now: float) -> SessionRecord:
    return SessionRecord(
        id=f"b_{number:032}",
        issuer="https://login.example.com/oauth/v2",
        subject=f"{number:018}",
        identity=f"firstname.lastname{number}@example.com",
        device_id=f"{number % _DEVICES:032x}",
        created_at=now,
        last_seen_at=now,
        expires_at=now + 43_200,
    )


def _device(number: int, now: float) -> DeviceRecord:
    return DeviceRecord(
        f"{number:032x}", f"laptop-{number}", f"person{number}", "people", "active", now, now, posture={"disk": True}
    )


async def _used(store: RedisStore) -> int:
    """What the server's memory holds."""
    lines = (await store.read("INFO", "memory")).decode("ascii").splitlines()
    return int(dict(line.partition(":")[::2] for line in lines)["used_memory"])


async def _in_turn(few: Pipeline, many: Pipeline, cases: Sequence[Case]) -> tuple[list[float], list[float]]:
    as_in_a_worker()
    small: list[float] = []
    large: list[float] = []
    for pipeline in (few, many):
        await judged(pipeline, cases, _WARM_CALLS)
    for _ in range(_ROUNDS):
        small += await judged(few, cases, _ROUND_CALLS)
        large += await judged(many, cases, _ROUND_CALLS)
    return small, large


async def _lookups(store: RedisStore) -> list[float]:
    """How long it takes to find one session of all, in microseconds."""
    taken = []
    for number in range(5_000):
        started = time.perf_counter_ns()
        record = await store.session(f"b_{number * 199 % _SESSIONS:032}")
        taken.append((time.perf_counter_ns() - started) / 1000)
        if record is None:
            raise BenchFailed("a session was lost")
    return taken
