"""A CSV file of sign-ins, scored by the gateway's own login pattern: the same rows, with score and terms.

Columns, in any order: time (ISO 8601, UTC without an offset, or seconds since the epoch), user, ip and success are
needed; country, asn, lat, lon, accuracy_km, user_agent, browser, os and device_type may be missing or empty. Others are
handed through. What `browser`, `os` and `device_type` say counts more than the User-Agent. Rows are scored in order of
time, against what was learned from the successes before them, and answered in the order of the file. A file in order of
time is streamed; another one is held in memory.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from gateway.core.ports.pipeline import Network
from gateway.core.signals import Observation
from gateway.operations.errors import ActionFailed
from gateway.risk.login_pattern import LoginPatternModel
from gateway.risk.user_agents import Program, read

ANSWERS = ("score", "terms")
_NEEDED = ("time", "user", "ip", "success")
_TRUTH = {"true": True, "1": True, "yes": True, "t": True, "false": False, "0": False, "no": False, "f": False}
_COUNTRY = re.compile(r"[A-Z]{2}\Z")
_ASN = re.compile(r"(?:AS)?([0-9]{1,10})(?:\.0)?\Z", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,6}")
_FAMILY = re.compile(r"[^0-9/]*")
_MOST_ASN, _MOST_KM, _LATEST = 0xFFFF_FFFF, 20_100.0, 1e11

type Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class SignIn:
    """One row, read: who, when, whence and with what; `row` is the row itself."""

    user: str
    seen: Observation
    program: Program
    success: bool
    row: Row


class _Bad(ValueError):
    """A value that does not fit: what is wrong with it, and what would be right."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def columns(file: Path) -> list[str]:
    """The file's columns. Raises ActionFailed for a file that cannot be read or has not the columns it needs."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            header = [name.strip() for name in next(csv.reader(text), [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ActionFailed(f"{file} cannot be read: {error}.", "Name a CSV file in UTF-8.") from error
    if missing := [name for name in _NEEDED if name not in header]:
        raise ActionFailed(f"{file}:1: no column {', '.join(missing)}.", "Name the columns in the first line.")
    if twice := sorted({name for name in header if header.count(name) > 1} | (set(header) & set(ANSWERS))):
        raise ActionFailed(f"{file}:1: a second column {', '.join(twice)}.", "Rename it, or leave it out.")
    return header


def scored(file: Path, advance: Callable[[int], None] = lambda done: None) -> Iterator[Row]:  # noqa: ARG005
    """Every row with its answers: `score`, and `terms` as a JSON object whose values sum to it.

    `advance` is told now and then how many rows are done. Raises ActionFailed for the first row that does not fit.
    """
    if _is_in_order(file):
        yield from (row for _, row in _scored(enumerate(_sign_ins(file)), advance))
        return
    ordered = sorted(enumerate(_sign_ins(file)), key=lambda item: item[1].seen.now)
    yield from (row for _, row in sorted(_scored(ordered, advance), key=lambda item: item[0]))


def _scored(sign_ins: Iterable[tuple[int, SignIn]], advance: Callable[[int], None]) -> Iterator[tuple[int, Row]]:
    logins = LoginPatternModel()
    profiles: dict[str, Mapping[str, Any]] = {}
    everybody: Mapping[str, Any] = {}
    for done, (number, sign_in) in enumerate(sign_ins):
        profile = profiles.get(sign_in.user, {})
        terms = logins.score(sign_in.seen, profile, everybody, program=sign_in.program)
        if sign_in.success:
            profiles[sign_in.user], everybody = logins.learn(sign_in.seen, profile, everybody, program=sign_in.program)
        named = json.dumps({term.name: term.value for term in terms})
        score = f"{math.fsum(term.value for term in terms):.3f}"
        yield number, {**sign_in.row, "score": score, "terms": named}
        if done % 1_000 == 0:
            advance(done)


def _is_in_order(file: Path) -> bool:
    last = -math.inf
    for one in _rows(file):
        now = _fitting(file, one, lambda row: _time(row["time"]))
        if now < last:
            return False
        last = now
    return True


def _sign_ins(file: Path) -> Iterator[SignIn]:
    for one in _rows(file):
        yield _fitting(file, one, _sign_in)


def _rows(file: Path) -> Iterator[tuple[int, Row]]:
    """Every row that is not empty, with the number of its last line."""
    names = columns(file)
    line = 1
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            next(reader)
            for cells in reader:
                line = reader.line_num
                if len(cells) not in {0, len(names)}:
                    message = f"{file}:{line}: {len(cells)} values for {len(names)} columns."
                    raise ActionFailed(message, "Put a value with a comma or a line break in double quotes.")
                if cells:
                    yield line, dict(zip(names, cells, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ActionFailed(f"{file}: after line {line}: {error}.", "Write the file as CSV in UTF-8.") from error


def _fitting[Value](file: Path, numbered: tuple[int, Row], make: Callable[[Row], Value]) -> Value:
    try:
        return make(numbered[1])
    except _Bad as error:
        raise ActionFailed(f"{file}:{numbered[0]}: {error}.", error.fix) from error


# ---- values ----


def _sign_in(row: Row) -> SignIn:
    def text(name: str) -> str:
        return row.get(name, "").strip()

    user, success = text("user"), _TRUTH.get(text("success").lower())
    if not user:
        raise _Bad("no user", "Give every row a user: a name, a number or a hash.")
    if success is None:
        raise _Bad(f"success is `{text('success')[:40]}`", "Write true or false.")
    seen = Observation(
        now=_time(row["time"]),
        subject=user,
        session="",
        ip=_ip(text("ip")),
        network=_network(text),
        agent=text("user_agent"),
    )
    return SignIn(user, seen, _program(read(seen.agent), text), success, row)


def _time(text: str) -> float:
    fix = "Write ISO 8601, such as 2026-03-01T08:30:00+01:00, or seconds since the epoch."
    text = text.strip()
    try:
        now = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise _Bad(f"time is `{text[:40]}`", fix) from None
        now = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    if not 0 <= now < _LATEST:  # also for what is no number
        raise _Bad(f"time is `{text[:40]}`", f"{fix} Not milliseconds.")
    return now


def _ip(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        raise _Bad(f"ip is `{text[:60]}`", "Write an IPv4 or IPv6 address.") from None
    return str(getattr(address, "ipv4_mapped", None) or address)


def _network(text: Callable[[str], str]) -> Network:
    country, asn = text("country").upper(), text("asn")
    if country and not _COUNTRY.match(country):
        raise _Bad(f"country is `{country[:40]}`", "Write two letters (ISO 3166-1), such as DE, or nothing.")
    number = _ASN.match(asn)
    if asn and (number is None or int(number[1]) > _MOST_ASN):
        raise _Bad(f"asn is `{asn[:40]}`", "Write a number, such as 64500 or AS64500, or nothing.")
    latitude, longitude = _decimal(text, "lat", -90, 90), _decimal(text, "lon", -180, 180)
    radius = _decimal(text, "accuracy_km", 0, _MOST_KM)
    if (latitude is None) != (longitude is None):
        raise _Bad("only one of lat and lon", "Give both, or none.")
    # AS 0 is nobody's: some databases write it for "unknown".
    known = int(number[1]) or None if number is not None else None
    return Network(country or None, known, "", latitude, longitude, radius)


def _decimal(text: Callable[[str], str], name: str, least: float, most: float) -> float | None:
    if not text(name):
        return None
    try:
        number = float(text(name))
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise _Bad(f"{name} is `{text(name)[:40]}`", f"Write a number from {least:g} to {most:g}, or nothing.")
    return number


def _program(program: Program, text: Callable[[str], str]) -> Program:
    """What the columns say of the program; where they are empty, what the User-Agent says."""
    if browser := text("browser"):
        version = _NUMBER.search(browser)
        family = (_FAMILY.match(browser) or [""])[0].strip().lower()
        program = replace(program, browser=family or browser.lower(), version=int(version[0]) if version else 0)
    if system := text("os"):
        program = replace(program, os=(_FAMILY.match(system) or [""])[0].strip().lower() or system.lower())
    return replace(program, device_type=text("device_type").lower() or program.device_type)
