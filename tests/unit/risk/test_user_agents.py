"""What a User-Agent says, for those that people and programs really send."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.risk.user_agents import Program, read
from tests.support.cost import cost

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
APPLE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
WINDOWS, MAC = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X)"


@pytest.mark.parametrize(
    ("agent", "program"),
    [
        (f"{WINDOWS} {WEBKIT} Chrome/150.0.0.0 Safari/537.36", ("chrome", 150, "windows", "desktop")),
        (f"{WINDOWS} {WEBKIT} Chrome/150.0.0.0 Safari/537.36 Edg/150.0.0.0", ("edge", 150, "windows", "desktop")),
        (f"{WINDOWS} {WEBKIT} Chrome/149.0.0.0 Safari/537.36 OPR/134.0.0.0", ("opera", 134, "windows", "desktop")),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:152.0) Gecko/20100101 Firefox/152.0",
            ("firefox", 152, "windows", "desktop"),
        ),
        (
            "Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko",
            ("internet explorer", 11, "windows", "desktop"),
        ),
        (f"{MAC} {APPLE} Version/18.3 Safari/605.1.15", ("safari", 18, "macos", "desktop")),
        (f"{IPHONE} {APPLE} Version/18.5 Mobile/15E148 Safari/604.1", ("safari", 18, "ios", "phone")),
        (f"{IPHONE} {APPLE} CriOS/150.0.7871.1 Mobile/15E148 Safari/604.1", ("chrome", 150, "ios", "phone")),
        (
            f"Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) {APPLE} Version/17.5 Mobile/15E148 Safari/604.1",
            ("safari", 17, "ios", "tablet"),
        ),
        (
            f"Mozilla/5.0 (Linux; Android 10; K) {WEBKIT} Chrome/150.0.0.0 Mobile Safari/537.36",
            ("chrome", 150, "android", "phone"),
        ),
        (
            f"Mozilla/5.0 (Linux; Android 13; SM-X200) {WEBKIT} Chrome/150.0.0.0 Safari/537.36",
            ("chrome", 150, "android", "tablet"),
        ),
        (
            f"Mozilla/5.0 (Linux; Android 15) {WEBKIT} SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
            ("samsung", 28, "android", "phone"),
        ),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            ("firefox", 140, "linux", "desktop"),
        ),
        (
            f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/150.0.0.0 Safari/537.36",
            ("chrome", 150, "chromeos", "desktop"),
        ),
        (
            f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} HeadlessChrome/150.0.0.0 Safari/537.36",
            ("chrome", 150, "linux", "desktop"),
        ),
        ("curl/8.14.1", ("curl", 8, "", "program")),
        ("python-httpx/0.28.1", ("python-httpx", 0, "", "program")),
        ("PostmanRuntime/v7.43.0", ("postmanruntime", 7, "", "program")),
        ("\N{SNOWMAN}", ("", 0, "", "program")),
        ("", ("", 0, "", "")),
    ],
)
def test_programs_are_told_apart(agent: str, program: tuple[str, int, str, str]) -> None:
    assert read(agent) == Program(*program)


@given(st.text(max_size=2_000))
def test_anything_at_all_is_read_and_stays_small(agent: str) -> None:
    program = read(agent)
    assert len(program.browser) <= 40
    assert 0 <= program.version < 1_000_000
    assert program.device_type in {"desktop", "phone", "tablet", "program", ""}


@pytest.mark.parametrize("piece", ["Mozilla/5.0 (", "Trident/", "iPhone;", "Version/18.3 Mobile/", "CrOS a", " ", "0"])
def test_a_hostile_user_agent_costs_no_time(piece: str) -> None:
    numbers = itertools.count()  # what was read before is remembered
    assert cost(lambda: read(piece * 4_000 + str(next(numbers))), 10) < 500
    assert cost(lambda: read(str(next(numbers)) + piece * 4_000), 10) < 500
