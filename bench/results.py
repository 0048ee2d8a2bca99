"""The figures: their aims, bench/results.json, the table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from operator import le
from pathlib import Path
from typing import Any

from rich.table import Table

PATH = Path(__file__).resolve().parent / "results.json"


@dataclass(frozen=True, slots=True)
class Figure:
    """One headline figure. `aim` says in words what `is_met` asks for; None where it is only shown."""

    key: str
    what: str
    form: str
    aim: str = ""
    is_met: Callable[[float], bool] | None = None


_OTHER_ATTACKERS = (
    ("naive", "from abroad"),
    ("vpn", "VPN in the country"),
    ("same_country", "same country and browser"),
)

FIGURES = (
    Figure(
        "full_vs_mitmdump", "full path, one worker, against stock mitmdump", "{:.2f} x", "≥ 2.0 x", lambda x: x >= 2
    ),
    Figure("request_cpu_us", "processor time of a request, full path", "{:.0f} us"),
    Figure("request_cpu_us_mitmdump", "the same, stock mitmdump", "{:.0f} us"),
    Figure("two_workers_vs_one", "two workers against one", "{:.2f} x", "≥ 1.7 x with two free cores"),
    Figure("added_latency_p50_ms", "added latency over a bare mitmproxy, p50", "{:.2f} ms", "< 1 ms", lambda x: x < 1),
    Figure("decision_p50_us", "one decision, p50", "{:.0f} us", "≤ 150 us", lambda x: x <= 150),
    Figure("decision_p99_us", "one decision, p99", "{:.0f} us", "< 1,000 us", lambda x: x < 1000),
    Figure("decision_uncached_p50_us", "the same, evaluated anew, p50", "{:.0f} us", "≤ 300 us", lambda x: x <= 300),
    Figure("decision_uncached_p99_us", "the same, p99", "{:.0f} us", "≤ 1,000 us", lambda x: x <= 1000),
    Figure("decision_scale_factor", "5,000 services against 10, p50", "{:.2f} x", "≤ 1.2 x", lambda x: x <= 1.2),
    Figure("policy_reload_ms", "reload of 5,000 services' policies", "{:.0f} ms", "< 300 ms", lambda x: x < 300),
    Figure("policy_reload_request_p99_ms", "a request meanwhile, p99", "{:.1f} ms", "≤ 5 ms", lambda x: x <= 5),
    Figure("engine_rss_mib", "memory of the policy engine", "{:.0f} MiB", "≤ 40 MiB", lambda x: x <= 40),
    Figure("parity_differences", "2,000 random policies, here and in OPA", "{:.0f}", "0", lambda x: x == 0),
    Figure("scale_factor_1m", "1,000,000 sessions against 1,000, p50", "{:.2f} x", "≤ 1.2 x", lambda x: x <= 1.2),
    Figure("store_bytes_per_session", "memory of a session in Redis", "{:.0f} B", "< 1,024 B", lambda x: x < 1024),
    Figure("idle_conn_kib", "memory of an idle mTLS connection", "{:.0f} KiB"),
    Figure("download_rss_growth_mib", "memory growth during a 1 GiB download", "{:.1f} MiB"),
    Figure("logout_push_p99_ms", "logout at the provider, pushed, p99", "{:.0f} ms", "< 1,000 ms", lambda x: x < 1000),
    Figure("logout_reconcile_p99_ms", "the same, every push lost, p99", "{:.0f} ms", "< 5,000 ms", lambda x: x < 5000),
    Figure("refreshes_for_200_parallel", "refreshes for 200 requests at once", "{:.0f}", "1", lambda x: x == 1),
    Figure("revoke_p99_ms_sqlite", "revoke to last byte, 2 workers", "{:.0f} ms", "< 250 ms", lambda x: x < 250),
    Figure("revoke_p99_ms_redis", "the same, 2 gateways on Redis", "{:.0f} ms", "< 250 ms", lambda x: x < 250),
    Figure("session_lookup_p50_us", "one of 100,000 sessions, p50", "{:.0f} us", "< 100 us", lambda x: x < 100),
    Figure("tpr_fpr1_naive", "caught at 1 % false positives: from abroad", "{:.3f}", "≥ .995", lambda x: x >= 0.995),
    Figure("tpr_fpr1_vpn", "the same: VPN in the country", "{:.3f}", "≥ .98", lambda x: x >= 0.98),
    Figure("tpr_fpr1_same_isp", "the same: same ISP and city", "{:.3f}", "≥ .80", lambda x: x >= 0.8),
    Figure("tpr_fpr1_exact", "the same: exact browser, same ISP", "{:.3f}"),
    Figure("tpr_fpr01_naive", "caught at 0.1 %: from abroad", "{:.3f}", "≥ .95", lambda x: x >= 0.95),
    Figure("tpr_fpr01_vpn", "the same: VPN in the country", "{:.3f}", "≥ .75", lambda x: x >= 0.75),
    Figure("tpr_fpr01_same_isp", "the same: same ISP and city", "{:.3f}", "≥ .30", lambda x: x >= 0.3),
    *(
        Figure(f"tpr_{rate}_{world}_{attacker}", f"{world}, {share}: {label}", "{:.3f}", f"≥ {aim}", partial(le, aim))
        for world in ("travellers", "shifts")
        for rate, share, aims in (("fpr1", "1 %", (0.995, 0.98, 0.65)), ("fpr01", "0.1 %", (0.93, 0.8, 0.1)))
        for (attacker, label), aim in zip(_OTHER_ATTACKERS, aims, strict=True)
    ),
    Figure("reauth_known_pct", "honest sign-ins asked, ten or more before", "{:.2f} %", "≤ 0.5 %", lambda x: x <= 0.5),
    Figure("reauth_new_pct", "honest sign-ins asked, fewer before", "{:.2f} %", "≤ 10 %", lambda x: x <= 10),
    Figure("scoring_p99_us", "one scoring of a sign-in, p99", "{:.0f} us", "< 200 us", lambda x: x < 200),
)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The old figures with the new ones in their place; three digits after the point."""
    both = {**old, **new}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in both.items()}


def read(path: Path = PATH) -> dict[str, Any]:
    """What was measured before; nothing when there is no such file or it cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write(figures: Mapping[str, Any], path: Path = PATH) -> dict[str, Any]:
    """Merge `figures` into the file; all that it holds then."""
    together = merged(read(path), {**figures, "machine": machine()})
    path.write_text(json.dumps(together, indent=2) + "\n", encoding="utf-8")
    return together


def machine() -> dict[str, Any]:
    """Where and when."""
    return {
        "cores": os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "mitmproxy": version("mitmproxy"),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def table(figures: Mapping[str, Any]) -> Table:
    """The headline figures that are there."""
    table = Table(title=f"Measured on {figures['machine']['cores']} cores ({figures['machine']['processor']})")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("aim")
    table.add_column("")
    for figure in FIGURES:
        value = figures.get(figure.key)
        if value is not None:
            verdict = "" if figure.is_met is None else "[green]met[/]" if figure.is_met(value) else "[red]missed[/]"
            table.add_row(figure.what, figure.form.format(value), figure.aim, verdict)
    return table


def remarks(figures: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the figures."""
    edge = figures.get("edge")
    if not edge:
        return []
    lines = []
    for name, label in (("gateway", "gateway"), ("mitmdump", "mitmdump"), ("two_workers", "two workers")):
        side = edge[name]
        lines.append(
            f"{label}: {' '.join(f'{count:,.0f}' for count in side['per_s'])} requests/s, {side['proxy_us']:.0f} us of"
            f" processor each; cores used: proxy {side['proxy_cores']:.2f}, client {side['client_cores']:.2f},"
            f" upstream {side['upstream_cores']:.2f}"
        )
    double, single = edge["two_workers"]["proxy_cores"], edge["one_worker"]["proxy_cores"]
    lines.append(
        f"of the {figures['machine']['cores']} cores two workers got {double:.2f} and one got {single:.2f}, beside"
        f" client, upstream and whatever else runs here: at most {double / single:.2f} x was to be had"
    )
    return lines
