"""Requests a second and added latency, the real gateway beside others: same upstream, same client, same certificates.

Rounds are interleaved (A B A B A B), so that what the machine does meanwhile hits both; medians are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench.load import Run, closed_loop, open_loop
from bench.world import Serving, World

_ROUNDS = 3
_WARM_S, _ROUND_S = 1.5, 4.0
_CONNECTIONS = 16
_MANY_CONNECTIONS = 64  # the kernel deals connections out by chance; with many, two workers get about the same
_LOW_PER_S, _LOW_S = 50, 5.0


def measure(world: World, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of this group, with the raw ones below `edge`."""
    with world.upstream() as upstream, world.gateway(upstream) as gateway:
        say("the full path beside stock mitmdump")
        with world.mitmdump(upstream) as stock:
            full, plain = _throughput(world, (gateway, stock), upstream, _CONNECTIONS)
        say("two workers beside one")
        with world.gateway(upstream, workers=2) as two:
            single, double = _throughput(world, (gateway, two), upstream, _MANY_CONNECTIONS)
        say(f"added latency at {_LOW_PER_S} requests a second")
        with world.slim(upstream) as slim:
            added, bare = _latency(world, (gateway, slim), upstream)
    return {
        "full_vs_mitmdump": _per_s(full) / _per_s(plain),
        "two_workers_vs_one": _per_s(double) / _per_s(single),
        "request_cpu_us": median(run.proxy_us for run in full),
        "request_cpu_us_mitmdump": median(run.proxy_us for run in plain),
        "added_latency_p50_ms": median(run.p50_ms for run in added) - median(run.p50_ms for run in bare),
        "edge": {
            "gateway": _raw(full),
            "mitmdump": _raw(plain),
            "one_worker": _raw(single),
            "two_workers": _raw(double),
            "latency_gateway": _raw(added),
            "latency_slim": _raw(bare),
        },
    }


def _throughput(
    world: World, sides: Sequence[Serving], upstream: Serving, connections: int
) -> tuple[list[Run], list[Run]]:
    def run(proxy: Serving, seconds: float) -> Run:
        return closed_loop(world, proxy, upstream, connections=connections, seconds=seconds)

    for proxy in sides:
        run(proxy, _WARM_S)
    rounds = [[run(proxy, _ROUND_S) for proxy in sides] for _ in range(_ROUNDS)]
    return [first for first, _ in rounds], [second for _, second in rounds]


def _latency(world: World, sides: Sequence[Serving], upstream: Serving) -> tuple[list[Run], list[Run]]:
    def run(proxy: Serving) -> Run:
        return open_loop(world, proxy, upstream, per_s=_LOW_PER_S, seconds=_LOW_S)

    for proxy in sides:
        closed_loop(world, proxy, upstream, connections=1, seconds=_WARM_S)
    rounds = [[run(proxy) for proxy in sides] for _ in range(_ROUNDS)]
    return [first for first, _ in rounds], [second for _, second in rounds]


def _per_s(runs: Sequence[Run]) -> float:
    return median(run.per_s for run in runs)


def _raw(runs: Sequence[Run]) -> dict[str, Any]:
    """Each round's requests a second, and the medians of the rest."""
    names = ("p50_ms", "p99_ms", "proxy_us", "proxy_cores", "client_cores", "upstream_cores")
    middle = {name: round(median(getattr(run, name) for run in runs), 3) for name in names}
    return {"per_s": [round(run.per_s, 1) for run in runs], **middle}
