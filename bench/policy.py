"""The policy engine by itself: what a reload costs those served meanwhile, its memory, its parity with OPA."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from bench.processes import BenchFailed
from gateway.config import Config
from gateway.pipeline.pipeline import Pipeline
from gateway.wiring.generation import policy_engine
from tests.support.opa_world import BINARY, Opas
from tests.support.paths import POLICIES, ROOT
from tests.support.policy_parity import compare

_RELOADS = 7
_RANDOM_POLICIES = 2_000
_MEASURE_MEMORY = """
import json, sys
from pathlib import Path
from gateway.policy.bundle.loader import load
from gateway.policy.contract import ENTRY_POINT

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024

folder, case = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
services = {**case["services"], **{f"s{n}": next(iter(case["services"].values())) for n in range(10)}}
before = resident_mib()
bundle = load(folder, services, strict=True)
document = json.dumps(case["input"]).encode()
for _ in range(20_000):
    bundle.policy.evaluate_here(document, 1.0)
print(resident_mib() - before)
"""


async def reloads(config: Config, pipeline: Pipeline, judge_one: Any) -> dict[str, Any]:
    """Reload the policies of `config` beside `pipeline`, which judges one request after another all the time."""
    taken_ms, waits_us = list[float](), list[float]()
    done = asyncio.Event()

    async def serve() -> None:
        number = 0
        while not done.is_set():
            started = time.perf_counter_ns()
            await judge_one(pipeline, number)
            waits_us.append((time.perf_counter_ns() - started) / 1000)
            number += 1
            # As a server does: the next request comes through the loop.
            await asyncio.sleep(0)

    serving = asyncio.create_task(serve())
    await asyncio.sleep(0.2)
    waits_us.clear()
    for _ in range(_RELOADS):
        started = time.perf_counter()
        engine = await policy_engine(config)
        taken_ms.append((time.perf_counter() - started) * 1000)
        await engine.close()
    done.set()
    await serving
    cuts = quantiles(waits_us, n=1000)
    return {
        "policy_reload_ms": median(taken_ms),
        "policy_reload_request_p99_ms": cuts[989] / 1000,
        "longest_wait_ms": round(max(waits_us) / 1000, 2),
        "requests_during_reloads": len(waits_us),
    }


def engine_rss_mib() -> float:
    """Resident memory of the library, the starter policies and 20,000 evaluations, in a process of their own."""
    case = next(iter(sorted((POLICIES / "cases").glob("*.json"))))
    command = [sys.executable, "-c", _MEASURE_MEMORY, str(POLICIES), str(case)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchFailed(f"the engine's memory cannot be measured: {done.stderr.strip().splitlines()[-1:]}")
    return float(json.loads(done.stdout))


async def parity() -> Sequence[int] | None:
    """(policies, differences, seed) of a random comparison with a real OPA server; None where there is no OPA."""
    if not BINARY.exists():
        return None
    servers = Opas()
    try:
        seed = random.SystemRandom().randrange(1 << 32)
        comparison = await compare(servers.start(), _RANDOM_POLICIES, seed)
    finally:
        servers.stop_all()
    return comparison.policies, len(comparison.differences), comparison.seed
