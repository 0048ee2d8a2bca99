"""The load client: vegeta with a client certificate and the bearer token, over HTTP/1.1 connections that stay open."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import BenchFailed, cpu_s
from bench.world import HOST, Serving, World

_VEGETA = Path(__file__).resolve().parent.parent / ".tools" / "vegeta"
_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Run:
    """One run: requests a second, latency in ms, and shares of one processor (1.0 is a whole core)."""

    per_s: float
    p50_ms: float
    p99_ms: float
    proxy_cores: float
    client_cores: float
    upstream_cores: float

    @property
    def proxy_us(self) -> float:
        """Processor time of the proxy for each request, in microseconds."""
        return self.proxy_cores / self.per_s * 1e6


def closed_loop(world: World, proxy: Serving, upstream: Serving, *, connections: int, seconds: float) -> Run:
    """As many requests as `connections` get answered, each waiting for its answer."""
    every = str(connections)
    options = ["-rate=0", f"-max-workers={every}", f"-workers={every}", f"-connections={every}"]
    return _attack(world, proxy, upstream, seconds, options)


def open_loop(world: World, proxy: Serving, upstream: Serving, *, per_s: int, seconds: float) -> Run:
    """`per_s` requests a second on one connection, whether answers come or not."""
    options = [f"-rate={per_s}", "-max-workers=1", "-workers=1", "-connections=1"]
    return _attack(world, proxy, upstream, seconds, options)


def _attack(world: World, proxy: Serving, upstream: Serving, seconds: float, options: list[str]) -> Run:
    """Raises BenchFailed when any answer is not a 200, or the client is missing."""
    if not _VEGETA.exists():
        raise BenchFailed("The load client is missing: `sh tests/tools.sh bench` builds it and needs Go.")
    target = f"{HOST}:{proxy.port}"
    command = [str(_VEGETA), "attack", "-format=json", "-insecure", "-http2=false", "-redirects=-1"]
    command += [f"-connect-to={target}:127.0.0.1:{proxy.port}", f"-duration={seconds}s"]
    command += [f"-cert={world.device}", f"-key={world.device_key}", f"-output={world.folder / 'attack.bin'}", *options]
    # On stdin: a token does not belong into argv.
    header = {"Authorization": [f"Bearer {world.token}"]}
    wanted = json.dumps({"method": "GET", "url": f"https://{target}/", "header": header})
    before, started = _used(proxy, upstream), time.monotonic()
    subprocess.run(command, input=f"{wanted}\n".encode("ascii"), check=True)
    took, after = time.monotonic() - started, _used(proxy, upstream)
    report = _report(world.folder / "attack.bin")
    if report["status_codes"].keys() != {"200"}:
        raise BenchFailed(f"Not every answer was a 200: {report['status_codes']} {report['errors'][:3]}")
    shares = [(late - early) / took for late, early in zip(after, before, strict=True)]
    latencies = report["latencies"]
    return Run(report["throughput"], latencies["50th"] / _PER_MS, latencies["99th"] / _PER_MS, *shares)


def _used(proxy: Serving, upstream: Serving) -> tuple[float, float, float]:
    """Processor time so far, in seconds: proxy, client, upstream."""
    client = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(map(cpu_s, proxy.pids)), client.ru_utime + client.ru_stime, sum(map(cpu_s, upstream.pids))


def _report(results: Path) -> dict[str, Any]:
    done = subprocess.run([str(_VEGETA), "report", "-type=json", str(results)], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
