"""Strange sign-ins and stolen sessions in a synthetic world: what is caught, whom it bothers, what it costs.

Seeds are split in three: the weights of the login pattern were fitted to `FITTED` (nothing here uses them), thresholds
are set on the honest sign-ins of `TUNED`, and everything that is reported comes from `REPORTED`. Of an honest person's
sign-ins all but the very first count; "known" are those with ten or more before. `tpr_*` are those of the login pattern
alone (`gateway risk score`); what the whole assessor catches, at the same rates and at its level "high", stands beside
them, and who is asked (`reauth_*`) is said by that level.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.detection_runs import Judged, Run, lived
from bench.detection_sessions import bound, replays, sprayed
from bench.detection_travellers import ATTACKERS as OTHER_ATTACKERS
from bench.detection_world import ATTACKERS, Who

FITTED, TUNED, REPORTED = (1, 2, 3, 4, 5, 6), (11, 12), (21, 22)
OTHERS, OTHER_TUNED, OTHER_REPORTED = ("travellers", "shifts"), 11, 21
PEOPLE, DAYS, REPLAYS = 450, 180, 10_000
_KNOWN = 10
_RATES = {"fpr1": 0.01, "fpr01": 0.001}
_SCORERS = ("pattern", "assessed", "freeman")
_ROWS = {
    "pattern": "login pattern",
    "assessed": "whole assessor",
    "freeman": "Freeman et al.",
    "country": "country never seen",
    "high": "level high: asked",
}


def measure(
    say: Callable[[str], None], *, people: int = PEOPLE, days: int = DAYS, tries: int = REPLAYS
) -> dict[str, Any]:
    """The figures of this group, with the raw ones below `detection`. Prints a table of them."""
    runs = _runs(say, [("office", seed) for seed in (*TUNED, *REPORTED)], people, days)
    others = _others(say, people, days)
    say(f"stolen cookies, sprayed passwords, and {tries:,} replays of bound sessions")
    stolen = asyncio.run(_sessions(people, tries))
    tuned = [judged for seed in TUNED for judged in runs["office", seed].judged]
    reported = [judged for seed in REPORTED for judged in runs["office", seed].judged]
    caught = shares(tuned, reported)
    bothered = prompts(reported)
    costs = {
        "scoring_p99_us": max(runs["office", seed].p99_us(runs["office", seed].scoring_us) for seed in REPORTED),
        "assessing_p50_us": median(time for seed in REPORTED for time in runs["office", seed].assessing_us),
        "assessing_p99_us": max(runs["office", seed].p99_us(runs["office", seed].assessing_us) for seed in REPORTED),
        "profile_bytes": max(run.profile_bytes for run in runs.values()),
        "population_bytes": max(run.population_bytes for run in runs.values()),
    }
    _print(caught, bothered, stolen)
    _print_others(others)
    headline = {
        f"tpr_{rate}_{attacker}": caught["pattern"][rate][attacker]
        for rate in _RATES
        for attacker in ATTACKERS
        if (rate, attacker) != ("fpr01", "exact")
    }
    return {
        **headline,
        **{
            f"tpr_{rate}_{world}_{attacker}": caught[rate][attacker]
            for world, caught in others.items()
            for rate in _RATES
            for attacker in OTHER_ATTACKERS
        },
        "reauth_known_pct": bothered["high"]["known"],
        "reauth_new_pct": bothered["high"]["new"],
        "scoring_p99_us": costs["scoring_p99_us"],
        "detection": {
            "sign_ins": sum(judged.who == "honest" for judged in reported),
            "attacks_of_each_kind": sum(judged.who == "vpn" for judged in reported),
            "caught": _rounded(caught),
            # Had the rate of false positives come out exactly: thresholds from the very worlds that are reported.
            "caught_at_the_exact_rate": _rounded(shares(reported, reported)["pattern"]),
            "prompts_pct": _rounded(bothered),
            "other_worlds": _rounded(others),
            **_rounded(stolen),
            **_rounded(costs),
        },
    }


def _runs(
    say: Callable[[str], None], worlds: Sequence[tuple[str, int]], people: int, days: int
) -> dict[tuple[str, int], Run]:
    """By make and seed."""
    runs: dict[tuple[str, int], Run] = {}
    say(f"{len(worlds)} worlds of {people} people over {days} days")
    workers = min(len(worlds), os.process_cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed(pool.submit(lived, seed, people, days, world) for world, seed in worlds):
            run = done.result()
            runs[run.world, run.seed] = run
            say(f"  {run.world} {run.seed}: {len(run.judged):,} sign-ins ({len(runs)} of {len(worlds)})")
    return runs


def _others(say: Callable[[str], None], people: int, days: int) -> dict[str, dict[str, dict[str, float]]]:
    """By world of another make and rate: the share that the login pattern catches, thresholds from its other seed."""
    seeds = (OTHER_TUNED, OTHER_REPORTED)
    runs = _runs(say, [(world, seed) for world in OTHERS for seed in seeds], people, days)
    return {
        world: shares(runs[world, OTHER_TUNED].judged, runs[world, OTHER_REPORTED].judged, OTHER_ATTACKERS)["pattern"]
        for world in OTHERS
    }


async def _sessions(people: int, tries: int) -> dict[str, Any]:
    seed = REPORTED[0]
    exact = await bound(seed, tries)
    return {
        "exact_bound_tried": exact["tried"],
        "exact_bound_served": exact["served"],
        "unbound_replay_pct": await replays(seed, people),
        "spraying_pct": await sprayed(seed, 100),
    }


# ---- figures ----


def shares(
    tuned: Sequence[Judged], reported: Sequence[Judged], attackers: Sequence[Who] = ATTACKERS
) -> dict[str, dict[str, dict[str, float]]]:
    """By scorer and rate: the share caught of each attacker, the threshold, and "honest": the rate that came out.

    Thresholds are those that as many of the tuned world's honest sign-ins pass. "country" and "high" have one rate.
    """
    rates: dict[str, dict[str, dict[str, float]]] = {}
    for scorer in _SCORERS:
        passed = sorted(getattr(judged, scorer) for judged in _honest(tuned))
        rates[scorer] = {}
        for rate, share in _RATES.items():
            threshold = passed[-1 - int(share * len(passed))]
            rates[scorer][rate] = {
                "threshold": threshold,
                **_caught(reported, attackers, lambda judged, s=scorer, t=threshold: getattr(judged, s) > t),  # type: ignore[misc]
            }
    rates["country"] = {"own": _caught(reported, attackers, lambda judged: judged.country > 0)}
    rates["high"] = {"own": _caught(reported, attackers, lambda judged: judged.level == "high")}
    return rates


def _caught(
    judged: Sequence[Judged], attackers: Sequence[Who], is_caught: Callable[[Judged], bool]
) -> dict[str, float]:
    groups = {who: [one for one in judged if one.who == who] for who in attackers} | {"honest": _honest(judged)}
    return {who: sum(map(is_caught, group)) / max(1, len(group)) for who, group in groups.items()}


def prompts(reported: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """By level: how many percent of honest sign-ins get it, by length of history; and of the known and the new ones."""
    edges = (2, 5, _KNOWN, 20, 50, 100)
    names = ("1", "2-4", "5-9", "10-19", "20-49", "50-99", "100+")
    groups: dict[str, list[Judged]] = {name: [] for name in names}
    for judged in _honest(reported):
        groups[names[bisect_left(edges, judged.history + 1)]].append(judged)
    groups["known"] = [judged for judged in _honest(reported) if judged.history >= _KNOWN]
    groups["new"] = [judged for judged in _honest(reported) if judged.history < _KNOWN]
    return {
        level: {
            name: 100 * sum(judged.level == level for judged in group) / max(1, len(group))
            for name, group in groups.items()
        }
        for level in ("high", "medium")
    }


def _honest(judged: Sequence[Judged]) -> list[Judged]:
    return [one for one in judged if one.who == "honest" and one.history]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


# ---- the table ----


def _print(
    caught: Mapping[str, Mapping[str, Mapping[str, float]]],
    bothered: Mapping[str, Mapping[str, float]],
    stolen: Mapping[str, Any],
) -> None:
    console = Console(soft_wrap=True)
    table = Table(title="Attackers caught (thresholds from other worlds)")
    for name in ("scorer", "honest asked", *ATTACKERS):
        table.add_column(name, justify="left" if name == "scorer" else "right")
    for rate in (*_RATES, "own"):
        for scorer, label in _ROWS.items():
            if found := caught[scorer].get(rate):
                table.add_row(label, f"{found['honest']:.2%}", *(f"{found[who]:.3f}" for who in ATTACKERS))
        table.add_section()
    console.print(table)
    asked = Table(title="Honest sign-ins by earlier ones, in percent")
    asked.add_column("level")
    for name in bothered["high"]:
        asked.add_column(name, justify="right")
    for level, groups in bothered.items():
        asked.add_row(level, *(f"{value:.2f}" for value in groups.values()))
    console.print(asked)
    for name, value in {**stolen["unbound_replay_pct"], **stolen["spraying_pct"]}.items():
        console.print(f"{name.replace('_', ' ')}: {value:.1f} % caught")
    console.print(
        f"replays of bound sessions served: {stolen['exact_bound_served']} of {stolen['exact_bound_tried']:,}"
    )


def _print_others(others: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    table = Table(title="Worlds of another make, on which nothing was tuned (login pattern)")
    for name in ("world", "honest asked", *OTHER_ATTACKERS):
        table.add_column(name, justify="left" if name == "world" else "right")
    for world, rates in others.items():
        for rate in _RATES:
            shown = rates[rate]
            table.add_row(world, f"{shown['honest']:.2%}", *(f"{shown[who]:.3f}" for who in OTHER_ATTACKERS))
    Console(soft_wrap=True).print(table)
