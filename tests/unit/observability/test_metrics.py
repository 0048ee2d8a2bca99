import json
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families

from gateway.observability.metrics import Metrics, use_directory

WORKER = """
import os, sys
from pathlib import Path
from gateway.observability.metrics import Metrics, use_directory
use_directory(Path(sys.argv[1]), fresh=False)
metrics = Metrics()
metrics.decision("directory", "allow", "policy_ok", 0.0004, zero_log=False)
metrics.connections(3)
print(os.getpid())
"""


@pytest.fixture
def metrics(tmp_path: Any, monkeypatch: Any) -> Any:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    use_directory(tmp_path, fresh=True)
    yield Metrics()
    values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]


def samples(metrics: Any) -> Any:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_decisions_are_counted_by_service_effect_reason_and_edge(metrics: Any) -> None:
    for _ in range(3):
        metrics.decision("directory", "deny", "role_missing", 0.0004, zero_log=False)
    metrics.decision("directory", "allow", "policy_ok", 0.0001, zero_log=False)
    figures = samples(metrics)
    assert figures["gateway_decisions_total", "deny", "directory", "mitm", "role_missing"] == 3
    assert figures["gateway_decisions_total", "allow", "directory", "mitm", "policy_ok"] == 1
    assert figures["gateway_decision_seconds_count",] == 4


def test_a_zero_log_decision_is_one_count_without_a_label(metrics: Any) -> None:
    before = metrics.render()
    metrics.decision("canary-clinic", "deny", "canary_reason", 7.7, zero_log=True)
    after = metrics.render()
    assert b"canary" not in after
    changed = set(after.splitlines()) - set(before.splitlines())
    assert changed == {b"gateway_user_plane_decisions_total 1.0"}


def test_responses_are_counted_by_class(metrics: Any) -> None:
    metrics.responded("directory", 204, 0.02)
    metrics.responded("directory", 200, 0.02)
    metrics.responded("directory", 503, 0.02)
    figures = samples(metrics)
    assert figures["gateway_responses_total", "2xx", "directory"] == 2
    assert figures["gateway_responses_total", "5xx", "directory"] == 1
    assert figures["gateway_upstream_seconds_count", "directory"] == 3


def test_reason_codes_that_a_policy_makes_up_without_end_share_one(metrics: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.observability.metrics._CHILDREN_LIMIT", 2)
    for number in range(10):
        metrics.decision("directory", "deny", f"code_{number}", 0.001, zero_log=False)
    figures = samples(metrics)
    assert figures["gateway_decisions_total", "deny", "directory", "mitm", "other"] == 8
    assert len([key for key in figures if key[0] == "gateway_decisions_total"]) == 3


def test_only_the_policy_in_use_is_one(metrics: Any) -> None:
    metrics.policy("v1")
    metrics.policy("v1")
    metrics.policy("v2")
    figures = samples(metrics)
    assert (figures["gateway_policy_info", "v1"], figures["gateway_policy_info", "v2"]) == (0, 1)


def test_the_age_of_a_crl_that_was_never_read_is_not_shown_as_zero(metrics: Any) -> None:
    assert ("gateway_device_crl_age_seconds",) not in samples(metrics)
    metrics.crl_age(12.0)
    assert samples(metrics)["gateway_device_crl_age_seconds",] == 12


def test_everything_else_is_counted_too(metrics: Any) -> None:
    metrics.handshake("ok")
    metrics.reloaded("refused")
    metrics.worker_restarted()
    metrics.connections(1)
    metrics.connections(-1)
    figures = samples(metrics)
    assert figures["gateway_handshakes_total", "ok"] == 1
    assert figures["gateway_config_reloads_total", "refused"] == 1
    assert figures["gateway_worker_restarts_total",] == 1
    assert figures["gateway_connections",] == 0


def test_workers_are_summed_and_a_dead_one_leaves_its_counts_but_not_its_connections(
    metrics: Any, tmp_path: Any
) -> None:
    metrics.decision("directory", "allow", "policy_ok", 0.0004, zero_log=False)
    pids = [
        json.loads(subprocess.run([sys.executable, "-c", WORKER, tmp_path], check=True, capture_output=True).stdout)
        for _ in range(2)
    ]
    assert samples(metrics)["gateway_connections",] == 6
    metrics.mark_dead(pids[0])
    figures = samples(metrics)
    assert figures["gateway_connections",] == 3
    assert figures["gateway_decisions_total", "allow", "directory", "mitm", "policy_ok"] == 3


def test_a_fresh_directory_forgets_the_last_run(metrics: Any, tmp_path: Any) -> None:
    metrics.worker_restarted()
    values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]
    use_directory(tmp_path, fresh=True)
    again = Metrics()
    assert samples(again)["gateway_worker_restarts_total",] == 0


def test_metrics_without_a_directory_are_refused(monkeypatch: Any) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    with pytest.raises(ValueError, match="use_directory"):
        Metrics()
