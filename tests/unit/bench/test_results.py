import json
from pathlib import Path

from rich.console import Console

from bench import results


def test_one_group_leaves_the_figures_of_the_others_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write({"decision_p50_us": 120.0, "idle_conn_kib": 70.0}, path)
    together = results.write({"decision_p50_us": 118.12345}, path)
    assert together["decision_p50_us"] == 118.123
    assert together["idle_conn_kib"] == 70.0
    assert json.loads(path.read_text()) == together


def test_a_file_that_cannot_be_read_counts_as_no_figures(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("[1, 2")
    assert results.read(path) == {}
    assert results.read(tmp_path / "none.json") == {}


def test_the_table_shows_what_was_measured_and_whether_the_aim_was_met(tmp_path: Path) -> None:
    figures = results.write({"full_vs_mitmdump": 2.5, "added_latency_p50_ms": 1.5}, tmp_path / "results.json")
    console = Console(record=True, width=200)
    console.print(results.table(figures))
    rows = {line.split("│")[1].strip(): line for line in console.export_text().splitlines() if line.startswith("│")}
    assert len(rows) == 2
    assert "2.50 x" in rows["full path, one worker, against stock mitmdump"]
    assert "met" in rows["full path, one worker, against stock mitmdump"]
    assert "missed" in rows["added latency over a bare mitmproxy, p50"]
