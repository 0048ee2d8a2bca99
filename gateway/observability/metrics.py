"""Prometheus metrics, summed over every worker.

Law: a request on the user plane is counted in `gateway_user_plane_decisions_total`, which has no label, and nowhere
else; no time, status or service of it is measured.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = CONTENT_TYPE_LATEST
_DECISION_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
_UPSTREAM_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
# A policy may make up reason codes; past this many combinations they share one.
_CHILDREN_LIMIT = 5_000


def use_directory(path: Path, *, fresh: bool) -> None:
    """Keep every process's figures below `path` (mode 0700). Call it before the first `Metrics` of a process.

    `fresh` forgets what is there: true in the process that starts the workers, false in the workers.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if fresh:
        for old in path.glob("*.db"):
            old.unlink(missing_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)
    # The library reads the variable once, at import; this is the choice it would have made then.
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]


class Metrics:
    """One process's figures; `render` gives those of all."""

    def __init__(self, edge: str = "mitm") -> None:
        """`edge` is the label of this process's decisions. Raises ValueError unless `use_directory` was called."""
        self._edge = edge
        self._path = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
        if not self._path:
            raise ValueError("use_directory comes first")
        # The figures live in files: no registry of this process is ever read.
        self._decisions = Counter(
            "gateway_decisions_total", "Decisions.", ["service", "effect", "reason", "edge"], registry=None
        )
        self._decision_seconds = Histogram(
            "gateway_decision_seconds", "Time from admit to settle.", buckets=_DECISION_BUCKETS, registry=None
        )
        self._user_plane = Counter("gateway_user_plane_decisions_total", "Decisions on zero-log routes.", registry=None)
        self._upstream_seconds = Histogram(
            "gateway_upstream_seconds",
            "Time until the service's response head.",
            ["service"],
            buckets=_UPSTREAM_BUCKETS,
            registry=None,
        )
        self._responses = Counter(
            "gateway_responses_total", "Responses of services.", ["service", "class"], registry=None
        )
        self._connections = Gauge(
            "gateway_connections", "Open client connections.", multiprocess_mode="livesum", registry=None
        )
        self._buffered = Gauge(
            "gateway_buffered_bytes",
            "Bytes of requests and answers under way that are held.",
            multiprocess_mode="livesum",
            registry=None,
        )
        self._connection_cuts = Counter(
            "gateway_connection_cuts_total", "Client connections that were cut.", ["reason"], registry=None
        )
        self._cuts = Counter("gateway_cuts_total", "Open requests that were cut.", ["reason"], registry=None)
        self._handshakes = Counter("gateway_handshakes_total", "TLS handshakes.", ["result"], registry=None)
        self._policy = Gauge(
            "gateway_policy_info", "1 for a policy in use.", ["version"], multiprocess_mode="livemax", registry=None
        )
        self._crl_age: Gauge | None = None
        self._reloads = Counter(
            "gateway_config_reloads_total", "Reloads of the configuration.", ["result"], registry=None
        )
        self._restarts = Counter("gateway_worker_restarts_total", "Workers started again.", registry=None)
        self._policy_version: str | None = None
        self._by_decision: dict[tuple[str, str, str], Counter] = {}
        self._by_response: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def decision(self, service: str, effect: str, reason: str, seconds: float, *, zero_log: bool) -> None:
        """One decision; `service` is "-" without a route. Of a zero-log one nothing but the fact is used."""
        if zero_log:
            self._user_plane.inc()
            return
        key = service, effect, reason
        counter = self._by_decision.get(key)
        if counter is None:
            if len(self._by_decision) >= _CHILDREN_LIMIT:
                key = service, effect, "other"
            counter = self._by_decision[key] = self._decisions.labels(*key, self._edge)
        counter.inc()
        self._decision_seconds.observe(seconds)

    def responded(self, service: str, status: int, seconds: float) -> None:
        """A response head of a staff service, `seconds` after the request went out."""
        key = service, status // 100
        children = self._by_response.get(key)
        if children is None:
            children = self._by_response[key] = (
                self._responses.labels(service, f"{key[1]}xx"),
                self._upstream_seconds.labels(service),
            )
        children[0].inc()
        children[1].observe(seconds)

    def cut(self, reason: str) -> None:
        """A request under way on a staff route was cut."""
        self._cuts.labels(reason).inc()

    def connections(self, change: int) -> None:
        """+1 for a client connection that was opened, -1 for one that was closed."""
        self._connections.inc(change)

    def buffered(self, change: int) -> None:
        """By how much the bytes changed that are held for clients."""
        self._buffered.inc(change)

    def connection_cut(self, reason: str) -> None:
        """A client connection was cut because of what it did to this worker; `reason` is a fixed word."""
        self._connection_cuts.labels(reason).inc()

    def handshake(self, result: str) -> None:
        """A TLS handshake: "ok", or a fixed word for why not."""
        self._handshakes.labels(result).inc()

    def policy(self, version: str) -> None:
        """The policy this process now uses."""
        if self._policy_version not in {None, version}:
            self._policy.labels(self._policy_version).set(0)
        self._policy.labels(version).set(1)
        self._policy_version = version

    def crl_age(self, seconds: float) -> None:
        """The age of the CRL's file."""
        if self._crl_age is None:
            # Made late: before the first CRL there is no age, and 0 would look like the best one.
            self._crl_age = Gauge(
                "gateway_device_crl_age_seconds", "Age of the CRL.", multiprocess_mode="livemax", registry=None
            )
        self._crl_age.set(seconds)

    def reloaded(self, result: str) -> None:
        """A reload of the configuration: "ok" or "refused"."""
        self._reloads.labels(result).inc()

    def worker_restarted(self) -> None:
        """A worker died and was started again."""
        self._restarts.inc()

    def render(self) -> bytes:
        """The figures of all processes in the text format (`CONTENT_TYPE`)."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=self._path)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def mark_dead(self, pid: int) -> None:
        """Forget the gauges of a process that has ended; its counters stay counted."""
        mark_process_dead(pid, self._path)  # type: ignore[no-untyped-call]
