"""The record as an operator reads it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import load
from gateway.operations import decisions
from gateway.operations.errors import ActionFailed
from tests.support.cli_world import gateway


def event(number: int, **members: object) -> dict[str, object]:
    return {
        "v": 1,
        "ts": 1_795_789_332.5 + number,
        "decision": f"d{number}",
        "effect": "deny",
        "reasons": ["role_missing"],
        "status": 403,
        "service": "app",
        "method": "GET",
        "host": "app.localhost",
        "path": "/x",
        "subject": "164",
        "name": "Alice Adler",
        "roles": ["guest"],
        "risk": 0.0,
        **members,
    }


@pytest.fixture
def record(site):
    return site / "state/decisions.jsonl"


@pytest.fixture
def config(site):
    return load(site / "gateway.yaml", environ={})


def written(file, *events):
    file.write_text("".join(json.dumps(item) + "\n" for item in events))


def test_a_decision_is_found_by_its_id_in_whatever_file_it_stands(record, config):
    written(record, event(3), event(4))
    written(record.with_name("decisions-20261101T000000Z.jsonl"), event(1), event(2))
    for number in (1, 2, 3, 4):
        assert decisions.find(config, f" d{number}\n")["decision"] == f"d{number}"
    with pytest.raises(ActionFailed, match="no decision d5"):
        decisions.find(config, "d5")
    with pytest.raises(ActionFailed, match="No decision is named"):
        decisions.find(config, " ")


def test_the_latest_come_first_and_can_be_narrowed(record, config):
    written(
        record,
        event(1, service="wiki", name="Bob", subject="7"),
        {"v": 1, "event": "login_ok"},
        event(2, effect="allow", reasons=["policy_ok"]),
        event(3),
    )

    def ids(**narrowed):
        return [item["decision"] for item in decisions.latest(config, count=10, **narrowed)]

    assert ids() == ["d3", "d2", "d1"]
    assert ids(service="wiki") == ["d1"]
    assert ids(person="alice") == ids(person="164") == ["d3", "d2"]
    assert ids(refused=True) == ["d3", "d1"]
    assert [item["decision"] for item in decisions.latest(config, count=1)] == ["d3"]


def test_lines_that_are_no_events_are_passed_over(record, config):
    record.write_bytes(b"\xff\xfe\n[]\n" + json.dumps(event(1)).encode() + b'\n{"cut')
    assert [item["decision"] for item in decisions.latest(config, count=10)] == ["d1"]


def test_a_record_that_is_not_there_has_no_decisions(config):
    assert decisions.latest(config, count=10) == []


@given(lines=st.lists(st.binary(max_size=200).map(lambda line: line.replace(b"\n", b"")), max_size=30))
def test_reading_backwards_is_reading_forwards_turned_round(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("lines") / "file"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    before = decisions._BLOCK
    decisions._BLOCK = 7
    try:
        assert list(decisions._lines_backwards(file)) == [line for line in reversed(lines) if line]
    finally:
        decisions._BLOCK = before


def test_the_command_says_who_what_why_and_what_would_change_it(site, record):
    written(record, event(1))
    shown = gateway("decision", "show", "d1", "-c", site / "gateway.yaml")
    assert shown.exit_code == 0
    assert "Alice Adler (164)" in shown.stdout
    assert "GET https://app.localhost/x" in shown.stdout
    assert "Ask the owner of the service for access." in shown.stderr
    assert json.loads(gateway("decision", "show", "d1", "--json", "-c", site / "gateway.yaml").stdout) == event(1)
    listed = gateway("decision", "list", "--refused", "-c", site / "gateway.yaml")
    assert "role_missing" in listed.stdout


def test_no_name_commands_the_terminal(site, record):
    written(record, event(1, name="\x1b]0;owned\x07\u202eAlice", path="/\x9b31m"))
    for command in (("decision", "show", "d1"), ("decision", "list")):
        text = gateway(*command, "-c", site / "gateway.yaml").stdout
        assert not set("\x1b\x07\x9b\u202e") & set(text)
        assert "Alice" in text
