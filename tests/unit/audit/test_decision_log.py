import json
import multiprocessing
import os
from typing import Any

import pytest

from gateway.audit.decision_log import LINE_LIMIT_BYTES, FileRecorder, decision_event
from gateway.core.decision import RiskReport
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Role, Session
from tests.support.cost import cost

PEER = Peer("192.0.2.7", 1, ja4="t13d1516h2_8daaf6152771_b186095e22b6", sni="staff.example")


def facts(**changes: Any) -> Any:
    values = {
        "method": "GET",
        "host": "staff.example",
        "path": "/people/1",
        "segments": ("people", "1"),
        "query": "token=canary-query",
        "query_fields": (("token", "canary-query"),),
        "headers": (("authorization", "Bearer canary-token"), ("cookie", "sid=canary-cookie")),
        "protocol": "h2",
        "content_length": 0,
        "peer": PEER,
        "client_ip": "192.0.2.7",
    }
    return RequestFacts(**{**values, **changes})


def event(**changes: Any) -> Any:
    values = {
        "ts": 1_700_000_000.5,
        "decision_id": "d1",
        "effect": "allow",
        "reasons": ("policy_ok",),
        "status": None,
        "peer": PEER,
        "edge": "mitm",
        "policy_version": "abc",
        "timings_us": {"admit": 12, "decide": 70},
        "facts": facts(),
        "route": Route("directory", "staff.example"),
        "device": Device("dev-1", "x" * 43),
        "identity": Identity("https://issuer", "u1", "jwt", "h", 1.0, name="Ann", client_id="c", roles=(Role("hr"),)),
        "session": Session("s1", 1.0),
        "risk": RiskReport(0.5),
        "obligations": ("no_store",),
    }
    return decision_event(**{**values, **changes})


def test_an_event_says_who_did_what_and_how_it_was_judged() -> None:
    line = event()
    assert line.pop("pid") == os.getpid()
    assert line == {
        "v": 1,
        "ts": 1_700_000_000.5,
        "decision": "d1",
        "effect": "allow",
        "reasons": ["policy_ok"],
        "status": None,
        "service": "directory",
        "plane": "staff",
        "ja4": PEER.ja4,
        "method": "GET",
        "host": "staff.example",
        "path": "/people/1",
        "protocol": "h2",
        "client_ip": "192.0.2.7",
        "issuer": "https://issuer",
        "subject": "u1",
        "name": "Ann",
        "client_id": "c",
        "roles": ["hr"],
        "device": "dev-1",
        "session": "s1",
        "risk": 0.5,
        "obligations": ["no_store"],
        "policy": "abc",
        "timings_us": {"admit": 12, "decide": 70},
        "edge": "mitm",
    }


def test_an_event_holds_no_credential_cookie_or_query_value() -> None:
    assert "canary" not in json.dumps(event())


def test_an_unreadable_request_is_recorded_with_its_peer() -> None:
    line = event(facts=None, route=None, device=None, identity=None, session=None, detail="query", effect="deny")
    assert (line["host"], line["client_ip"], line["detail"]) == ("staff.example", "192.0.2.7", "query")
    assert "subject" not in line
    assert line["service"] is None


def test_a_zero_log_route_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="zero-log"):
        event(route=Route("clinic", "user.example", plane="user"))


def test_the_longest_event_fits_in_a_line(tmp_path: Any) -> None:
    long = "\u20ac" * 5000
    line = event(
        facts=facts(path="/" + "%E2" * 3000, host="h" * 253),
        identity=Identity(long, long, "jwt", long, 1.0, name=long, client_id=long, roles=(Role(long),) * 500),
        detail=long,
        session=Session(long, 1.0),
        reasons=("r" * 64,) * 500,
        obligations=("o" * 64,) * 500,
    )
    FileRecorder(tmp_path / "r").record(line)
    assert (tmp_path / "r").stat().st_size <= LINE_LIMIT_BYTES


def test_a_line_is_one_json_object_and_cannot_be_broken_from_inside(tmp_path: Any) -> None:
    recorder = FileRecorder(tmp_path / "deep" / "r.jsonl")
    nasty = 'a\n{"effect":"allow"}\r\u2028\u0085\x00\ud800'
    recorder.record({"path": nasty})
    recorder.record({"path": "b"})
    recorder.close()
    lines = (tmp_path / "deep" / "r.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == [{"path": nasty}, {"path": "b"}]
    assert lines[-1] == b""


def test_the_file_is_readable_by_its_owner_alone_even_when_it_was_there_before(tmp_path: Any) -> None:
    path = tmp_path / "r"
    path.touch(0o644)
    FileRecorder(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_rotated_file_is_left_and_a_new_one_begun(tmp_path: Any) -> None:
    path = tmp_path / "r"
    recorder = FileRecorder(path)
    recorder.record({"n": 1})
    path.rename(tmp_path / "old")
    recorder.record({"n": 2})
    recorder.reopen()
    recorder.record({"n": 3})
    recorder.close()
    assert (tmp_path / "old").read_text() == '{"n":1}\n{"n":2}\n'
    assert path.read_text() == '{"n":3}\n'


def test_a_full_disk_raises() -> None:
    recorder = FileRecorder.__new__(FileRecorder)
    recorder._fd, recorder._torn = os.open("/dev/full", os.O_WRONLY), False
    with pytest.raises(OSError, match="No space left"):
        recorder.record({"n": 1})
    recorder.close()


def test_a_line_that_was_cut_off_raises_and_the_next_one_stands_alone(tmp_path: Any, monkeypatch: Any) -> None:
    path = tmp_path / "r"
    recorder = FileRecorder(path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:4]))
    with pytest.raises(OSError, match="cut off"):
        recorder.record({"n": 1})
    monkeypatch.setattr(os, "write", write)
    recorder.record({"n": 2})
    recorder.close()
    assert path.read_text() == '{"n"\n{"n":2}\n'


def test_a_line_that_is_too_long_raises_and_writes_nothing(tmp_path: Any) -> None:
    recorder = FileRecorder(tmp_path / "r")
    with pytest.raises(OSError, match="too long"):
        recorder.record({"x": "y" * LINE_LIMIT_BYTES})
    recorder.close()
    assert (tmp_path / "r").read_bytes() == b""


def test_a_closed_recorder_raises(tmp_path: Any) -> None:
    recorder = FileRecorder(tmp_path / "r")
    recorder.close()
    recorder.close()
    with pytest.raises(OSError):  # noqa: PT011 - the kernel's words
        recorder.record({"n": 1})


def _write_many(path: Any, name: Any) -> None:
    recorder = FileRecorder(path)
    for number in range(300):
        recorder.record({"who": name, "n": number, "pad": "p" * 3000})
    os.kill(os.getpid(), 9)


def test_lines_of_several_processes_do_not_mix_and_outlive_their_kill(tmp_path: Any) -> None:
    path = tmp_path / "r"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == -9
        writer.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((line["who"], line["n"]) for line in found) == [(who, n) for who in "abc" for n in range(300)]


def test_an_event_is_made_and_written_quickly(tmp_path: Any) -> None:
    recorder = FileRecorder(tmp_path / "r")
    assert cost(lambda: recorder.record(event())) < 20  # 2
    recorder.close()
