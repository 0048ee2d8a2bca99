"""One decision in process: the whole `Pipeline.judge` with the parts that `gateway.wiring` puts together.

A real device certificate, a real JWT, the embedded engine with the starter policies, the store, the signed assertion
and the record in a file. The interpreter is set up as in a worker.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median, quantiles
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bench import policy
from bench.processes import BenchFailed
from bench.world import World
from gateway.config import Config, load
from gateway.core.request import Peer, RawRequest
from gateway.edge.mitm.connection import CAPABILITIES
from gateway.observability.metrics import Metrics, use_directory
from gateway.pipeline.headers import Forward
from gateway.pipeline.pipeline import Pipeline
from gateway.policy.decider import Decider
from gateway.wiring import Generation, ProcessResources

_CALLS = 20_000
_FEW, _MANY = 10, 5_000
_ROUNDS, _ROUND_CALLS = 8, 2_500
_WARM_CALLS = 2_000

type Case = tuple[RawRequest, Peer]


async def measure(world: World, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of this group, with the raw ones below `decision`."""
    use_directory(world.folder / "metrics", fresh=True)
    metrics = Metrics()
    say(f"{_CALLS:,} decisions in process")
    async with _pipeline(world, metrics, "few", _FEW) as (few, _):
        cases = requests_of(world, _FEW)
        as_in_a_worker()
        await judged(few, cases, _WARM_CALLS)
        times_us = sorted(await judged(few, cases, _CALLS))
        # The same, nothing remembered: each is matched and evaluated anew.
        uncached_us = sorted(await judged(_forgetful(few), cases, _CALLS))
        say(f"{_MANY:,} services with {2 * _MANY:,} role bindings beside {_FEW}")
        async with _pipeline(world, metrics, "many", _MANY) as (many, config):
            small_one, large_one = _forgetful(few), _forgetful(many)
            as_in_a_worker()
            await judged(large_one, cases, _WARM_CALLS)
            small, large = [], []
            for _ in range(_ROUNDS):
                small += await judged(small_one, cases, _ROUND_CALLS)
                large += await judged(large_one, cases, _ROUND_CALLS)
            say(f"reloads of the policies for {_MANY:,} services, while requests are judged")
            reloads = await policy.reloads(config, many, partial(_judge_one, cases))
    say("the engine's memory, and random policies in it and in OPA")
    compared = await policy.parity()
    cuts, uncached = quantiles(times_us, n=1000), quantiles(uncached_us, n=1000)
    return {
        "decision_p50_us": median(times_us),
        "decision_p99_us": cuts[989],
        "decision_uncached_p50_us": median(uncached_us),
        "decision_uncached_p99_us": uncached[989],
        "decision_scale_factor": median(large) / median(small),
        "policy_reload_ms": reloads["policy_reload_ms"],
        "policy_reload_request_p99_ms": reloads["policy_reload_request_p99_ms"],
        "engine_rss_mib": policy.engine_rss_mib(),
        **({"parity_differences": compared[1]} if compared else {}),
        "decision": {
            "calls": _CALLS,
            "mean_us": round(sum(times_us) / len(times_us), 1),
            "p90_us": round(cuts[899], 1),
            "p999_us": round(cuts[998], 1),
            "uncached_mean_us": round(sum(uncached_us) / len(uncached_us), 1),
            "uncached_p999_us": round(uncached[998], 1),
            "few_services_evaluated_p50_us": round(median(small), 1),
            "many_services_evaluated_p50_us": round(median(large), 1),
            "many_services_p99_us": round(quantiles(large, n=100)[98], 1),
            "longest_wait_during_a_reload_ms": reloads["longest_wait_ms"],
            "requests_during_reloads": reloads["requests_during_reloads"],
            "random_policies_compared": compared[0] if compared else 0,
            "random_seed": compared[2] if compared else None,
        },
    }


async def _judge_one(cases: Sequence[Case], pipeline: Pipeline, number: int) -> None:
    await judged(pipeline, (cases[number % len(cases)],), 1)


@contextlib.asynccontextmanager
async def _pipeline(world: World, metrics: Metrics, name: str, count: int) -> AsyncIterator[tuple[Pipeline, Config]]:
    """A gateway with so many services; each lets two roles in, one of them `staff`."""
    services = [(f"s{number}", _host(number), ("staff", f"role{number}")) for number in range(count)]
    config = load(world.write_config(name, services=services))
    shared = await ProcessResources.open(config, metrics)
    try:
        generation = await Generation.build(config, shared)
        try:
            yield generation.pipeline, config
        finally:
            await generation.close()
    finally:
        await shared.close()


def _forgetful(pipeline: Pipeline) -> Pipeline:
    """The same pipeline, whose policies are evaluated for every request."""
    decider = Decider(pipeline.ports.decider.engine, 5.0, cache_size=0)
    return replace(pipeline, ports=replace(pipeline.ports, decider=decider))


def _host(number: int) -> str:
    return f"s{number}.bench.localhost"


def requests_of(world: World, count: int) -> list[Case]:
    """A request for every service, in an order of chance, as a browser would write it."""
    certificates = x509.load_pem_x509_certificates(world.device.read_bytes())
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
    digest = base64.urlsafe_b64encode(hashlib.sha256(chain[0]).digest()).rstrip(b"=").decode("ascii")
    requests = []
    for number in range(count):
        host = _host(number)
        headers = (
            (b"Host", host.encode("ascii")),
            (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            (b"Accept", b"application/json, text/plain, */*"),
            (b"Accept-Language", b"en,de;q=0.5"),
            (b"Accept-Encoding", b"gzip, deflate, br, zstd"),
            (b"Authorization", b"Bearer " + world.token.encode("ascii")),
        )
        raw = RawRequest(b"GET", b"", b"/api/people?page=2", headers, "1.1")
        ja4 = "t13d1516h1_8daaf6152771_02713d6af862"
        requests.append((raw, Peer("127.0.0.1", 40_000, chain, digest, host, "http/1.1", ja4)))
    random.Random(1).shuffle(requests)  # noqa: S311  (an order, no secret)
    return requests


async def judged(pipeline: Pipeline, cases: Sequence[Case], calls: int) -> list[float]:
    """How long each call took, in microseconds."""
    taken = []
    for number in range(calls):
        raw, peer = cases[number % len(cases)]
        started = time.perf_counter_ns()
        verdict = await pipeline.judge(raw, peer, CAPABILITIES)
        taken.append((time.perf_counter_ns() - started) / 1000)
        if not isinstance(verdict, Forward):
            raise BenchFailed(f"a request was refused: {getattr(verdict, 'reason', verdict)}")
        if not number % 50:
            await asyncio.sleep(0)
    return taken


def as_in_a_worker() -> None:
    """The collector as a worker sets it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
