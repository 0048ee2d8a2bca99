"""`gateway risk score` over files of sign-ins, and `gateway risk explain` over a real store."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.config import load
from gateway.core.ports.pipeline import Network
from gateway.core.ports.stores import SessionRecord
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Identity, Session
from gateway.wiring import open_state
from gateway.wiring.risk import assessor_of
from tests.support.cli_world import change, gateway

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
COLUMNS = (
    "time", "user", "ip", "country", "asn", "lat", "lon", "accuracy_km", "user_agent", "browser", "os", "device_type",
    "success",
)  # fmt: skip
HOME = ("ann", "192.0.2.7", "DE", "64500", "52.5", "13.4", "20", CHROME, "", "", "", "true")
ABROAD = ("ann", "198.51.100.9", "BR", "64999", "-23.5", "-46.6", "50", "curl/8.1", "", "", "", "false")


def written(path: Path, rows: list[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows([columns, *rows])
    return path


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def days(count: int, row: tuple[str, ...] = HOME) -> list[tuple[str, ...]]:
    return [(f"2026-03-{day:02}T08:30:00+01:00", *row) for day in range(1, count + 1)]


def failed(path: Path, *more: object) -> str:
    result = gateway("risk", "score", "--logins", path, *more)
    assert result.exit_code == 1, result.output
    assert result.stderr.count("fix ") == 1
    return " ".join(result.stderr.split())


# ---- score ----


def test_a_stranger_scores_higher_than_the_user_and_the_terms_sum_to_the_score(tmp_path: Path) -> None:
    rows = [*days(20), ("2026-03-21T03:00:00Z", *ABROAD)]
    result = gateway("risk", "score", "--logins", written(tmp_path / "logins.csv", rows))
    assert result.exit_code == 0, result.output
    answered = read(result.stdout)
    assert list(answered[0]) == [*COLUMNS, "score", "terms"]
    assert [tuple(row[name] for name in COLUMNS) for row in answered] == rows
    for row in answered:
        named = json.loads(row["terms"])
        assert all(name.startswith("login_") for name in named)
        assert float(row["score"]) == pytest.approx(math.fsum(named.values()), abs=1e-3)
    assert float(answered[-1]["score"]) > 4
    assert all(float(row["score"]) < 1 for row in answered[1:-1])
    assert "21 sign-ins" in result.stderr


def test_failures_teach_nothing(tmp_path: Path) -> None:
    attacks = [(f"2026-03-20T{hour:02}:00:00Z", *ABROAD) for hour in range(20)]
    result = gateway("risk", "score", "--logins", written(tmp_path / "logins.csv", [*days(15), *attacks]))
    scores = [float(row["score"]) for row in read(result.stdout)][-20:]
    assert min(scores) > 2.5
    learned = [(*row[:-1], "true") for row in attacks]
    result = gateway("risk", "score", "--logins", written(tmp_path / "logins.csv", [*days(15), *learned]))
    assert float(read(result.stdout)[-1]["score"]) < min(scores) - 2


def test_rows_out_of_order_are_scored_in_time_and_answered_in_place(tmp_path: Path) -> None:
    rows = [*days(12), ("2026-03-13T03:00:00Z", *ABROAD)]
    straight = read(gateway("risk", "score", "--logins", written(tmp_path / "a.csv", rows)).stdout)
    turned = read(gateway("risk", "score", "--logins", written(tmp_path / "b.csv", rows[::-1])).stdout)
    assert turned == straight[::-1]


def test_the_answer_goes_to_a_file_that_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file, out = written(tmp_path / "logins.csv", days(5)), tmp_path / "scored.csv"
    result = gateway("risk", "score", "--logins", file, "-o", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert len(read(out.read_text(encoding="utf-8"))) == 5
    before = out.read_bytes()
    written(file, [*days(5), ("never", *HOME)])
    assert ":7: time is `never`" in failed(file, "-o", out)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logins.csv", "scored.csv"]
    assert "cannot be written" in failed(written(file, days(5)), "-o", tmp_path / "none" / "scored.csv")


def test_a_few_columns_are_enough_and_others_are_handed_through(tmp_path: Path) -> None:
    columns = ("note", "success", "ip", "user", "time")
    rows = [(f"Zürich, {number}\nnight", "1", "::ffff:192.0.2.7", "7", f"17{number:08}") for number in range(5)]
    result = gateway("risk", "score", "--logins", written(tmp_path / "logins.csv", rows, columns))
    assert [row["note"] for row in read(result.stdout)] == [row[0] for row in rows]


def test_the_columns_of_the_program_count_more_than_the_user_agent(tmp_path: Path) -> None:
    told = ("ann", "192.0.2.7", "DE", "AS64500", "", "", "", "", "Chrome 150.0", "Mac OS X 15", "desktop", "yes")
    other = (*told[:8], "Safari 18", "iOS 18.5", "mobile", "yes")
    rows = [*days(15, told), ("2026-03-16T08:30:00+01:00", *other)]
    answered = read(gateway("risk", "score", "--logins", written(tmp_path / "logins.csv", rows)).stdout)
    assert float(answered[-1]["score"]) > float(answered[-2]["score"]) + 2
    assert {"login_program", "login_os"} <= json.loads(answered[-1]["terms"]).keys()


def test_an_empty_file_of_sign_ins_has_an_empty_answer(tmp_path: Path) -> None:
    result = gateway("risk", "score", "--logins", written(tmp_path / "logins.csv", []))
    assert (result.exit_code, result.stdout) == (0, ",".join([*COLUMNS, "score", "terms"]) + "\n")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("time", "1772350200000", "time is `1772350200000`"),
        ("time", "nan", "time is `nan`"),
        ("user", " ", "no user"),
        ("ip", "300.1.1.1", "ip is `300.1.1.1`"),
        ("country", "Germany", "country is `GERMANY`"),
        ("asn", "Example Net", "asn is `Example Net`"),
        ("asn", "4294967296", "asn is"),
        ("lat", "91", "lat is `91`"),
        ("lon", "", "only one of lat and lon"),
        ("accuracy_km", "-1", "accuracy_km is `-1`"),
        ("accuracy_km", "inf", "accuracy_km is `inf`"),
        ("success", "perhaps", "success is `perhaps`"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_line_and_its_fix(
    tmp_path: Path, column: str, value: str, said: str
) -> None:
    rows = days(3)
    broken = list(rows[1])
    broken[COLUMNS.index(column)] = value
    file = written(tmp_path / "logins.csv", [rows[0], tuple(broken), rows[2]])
    assert f"{file}:3: {said}" in failed(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no column time, user, ip, success"),
        (b"time,user,ip\n", "no column success"),
        (b"time,user,ip,success,score\n", "a second column score"),
        (b"time,user,ip,success,ip\n", "a second column ip"),
        (b"time,user,ip,success\n1,a,192.0.2.1\n", ":2: 3 values for 4 columns"),
        (b'time,user,ip,success\n1,a,192.0.2.1,1\n2,"a', "after line 2"),
        (b"time,user,ip,success\n1,\xff,192.0.2.1,1\n", "utf-8"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_such_csv_is_an_error(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "logins.csv"
    file.write_bytes(text)
    assert said in failed(file)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "cannot be read" in failed(tmp_path / "none.csv")


# ---- explain ----


async def _visits(file: Path) -> None:
    config = load(file, environ={})
    state = await open_state(config)
    assessor = assessor_of(config, state.documents)
    now = time.time()
    network = Network("DE", 64500, "Home Net", 52.5, 13.4, 20.0)
    for number in range(3):
        peer = Peer("192.0.2.7", 4711, ja4="t13d1516h2_8daaf6152771_b186095e22b6")
        facts = RequestFacts(
            "GET", "app.localhost", "/", (), "", (), (("user-agent", CHROME),), "h2", 0, peer, "192.0.2.7"
        )
        identity = Identity("https://id", "ann", "session", "h", now + 600, amr=("pwd", "otp"), auth_time=now)
        await assessor.assess(Session(f"l_{number}", now), identity, None, facts, network, Route("app", "app.example"))
    record_of = SessionRecord("l_2", "https://id", "ann", "ann@corp", "d1", now, now, now + 600)
    await state.store.put_session(record_of)
    await state.store.close()


def _recorded(record: Path) -> None:
    event = {"session": "l_2", "ts": 1.0, "service": "app", "effect": "allow", "risk": 1.5, "risk_level": "low"}
    lines = [{**event, "risk": 0.0}, {**event, "session": "l_9"}, {**event, "risk_terms": {"new_device": 1.5}}]
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"session": "l_2", "ri', encoding="utf-8")


@pytest.fixture
def risky(site: Path) -> Path:
    return site / "gateway.yaml"


def _explained(file: Path, *who: str) -> Any:
    result = gateway("risk", "explain", *who, "-c", file, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_what_is_remembered_and_the_last_terms_of_a_live_session_are_told(risky: Path) -> None:
    _recorded(load(risky, environ={}).record.file)
    asyncio.run(_visits(risky))
    found = _explained(risky, "https://id", "ann")
    assert found["history"]["login"]["n"] == 3
    assert list(found["history"]["new_network"]) == ["as64500"]
    (session,) = found["sessions"]
    assert (session["id"], session["last"]["terms"]) == ("l_2", {"new_device": 1.5})
    assert (session["last"]["score"], session["last"]["level"]) == (1.5, "low")
    text = gateway("risk", "explain", "https://id", "ann", "-c", risky).stdout
    assert "new_network" in text
    rows = dict(re.findall(r"^  (\S.*?)  +(.+)$", text, re.MULTILINE))
    assert (rows["sign-ins"], rows["network"]) == ("3 (older ones fade)", "as64500 (3 x)")
    assert rows["place"] == "52.5, 13.4 (within 20 km) (3 x)"
    assert re.search(r"^remembered since 20\d\d-", text, re.MULTILINE)
    assert "session l_2" in text
    assert "+1.500" in text


def test_of_somebody_who_was_never_seen_nothing_is_remembered(risky: Path) -> None:
    assert _explained(risky, "https://id", "nobody") == {
        "issuer": "https://id",
        "subject": "nobody",
        "history": {},
        "sessions": [],
    }
    assert "nothing is remembered" in gateway("risk", "explain", "https://id", "nobody", "-c", risky).stdout


def test_without_a_risk_section_there_is_nothing_to_explain(site: Path) -> None:
    change(site, lambda text: re.sub(r"^risk:.*\n", "", text, flags=re.MULTILINE))
    result = gateway("risk", "explain", "https://id", "ann", "-c", site / "gateway.yaml")
    assert result.exit_code == 1
    assert "risk: {}" in result.stderr
