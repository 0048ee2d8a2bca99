"""The login pattern: what it finds strange, what it learns, and that it holds its contract whatever it is given."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.ports.pipeline import Network
from gateway.core.signals import Observation
from gateway.risk.login_pattern import COUNTED, MEASURED, LoginPatternModel
from gateway.risk.scoring import floor_at_zero
from gateway.risk.user_agents import Program
from tests.support.cost import cost

NOW = 1_800_000_000.0 - 1_800_000_000.0 % 86_400 + 9 * 3_600
DAY = 86_400.0
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"
BERLIN = Network("DE", 64500, "Home Net", 52.52, 13.40, 20.0)
HAMBURG = Network("DE", 64501, "Hotel Net", 53.55, 10.0, 20.0)
SYDNEY = Network("AU", 64510, "Far Net", -33.87, 151.21, 50.0)
ANN = Observation(
    NOW, "ann", "s", ip="192.0.2.7", network=BERLIN, ja4="t13d_aaaa_b", agent=CHROME.format(150), hints="C"
)
LOGINS = LoginPatternModel()
Profile = Mapping[str, Any]


def score(seen: Observation, profile: Profile, everybody: Profile, **more: Any) -> float:
    return math.fsum(term.value for term in LOGINS.score(seen, profile, everybody, **more))


def terms(seen: Observation, profile: Profile, everybody: Profile) -> dict[str, float]:
    return {term.name.removeprefix("login_"): term.value for term in LOGINS.score(seen, profile, everybody)}


def lived(seen: Observation, days: int, everybody: Profile | None = None) -> tuple[Profile, Profile]:
    profile: Profile = {}
    everybody = everybody or {}
    for day in range(days):
        profile, everybody = LOGINS.learn(replace(seen, now=seen.now + day * DAY), profile, everybody)
    return profile, everybody


@pytest.fixture(scope="module")
def office() -> tuple[Profile, Profile]:
    """Ann's profile after 30 days, and everybody's: forty colleagues, half of them with Firefox."""
    everybody: Profile = {}
    for number in range(40):
        agent = CHROME.format(150) if number % 2 else FIREFOX
        _, everybody = lived(replace(ANN, subject=f"c{number}", ip=f"192.0.{number}.9", agent=agent), 3, everybody)
    return lived(ANN, 30, everybody)


# ---- what is strange ----


def test_what_a_person_always_does_speaks_for_it(office: Any) -> None:
    assert score(replace(ANN, now=NOW + 31 * DAY), *office) < 0
    assert floor_at_zero(LOGINS.score(ANN, *office)) == []


def test_the_stranger_it_is_the_higher_it_scores(office: Any) -> None:
    steps = [
        ANN,
        replace(ANN, ip="198.51.100.1"),
        replace(ANN, ip="198.51.100.1", network=HAMBURG),
        replace(ANN, ip="198.51.100.1", network=HAMBURG, agent=FIREFOX),
        replace(ANN, ip="198.51.100.1", network=SYDNEY, agent=FIREFOX, ja4="t13d_cccc_d"),
        replace(
            ANN, now=NOW + 18 * 3600, ip="198.51.100.1", network=SYDNEY, agent="curl/8.1", ja4="t13d_cccc_d", hints=""
        ),
    ]
    scores = [score(step, *office) for step in steps]
    assert scores == sorted(scores)
    assert scores[-1] > 8 > scores[1]


def test_what_is_new_to_everybody_scores_higher_than_what_colleagues_have(office: Any) -> None:
    theirs = terms(replace(ANN, agent=FIREFOX), *office)
    nobodys = terms(replace(ANN, agent=FIREFOX.replace("Firefox/", "OddBrowser/")), *office)
    assert nobodys["program"] > theirs["program"] > 0


def test_the_population_counts_people_and_not_sign_ins() -> None:
    everybody: Profile = {}
    for number in range(20):
        _, everybody = lived(replace(ANN, subject=f"c{number}"), 2, everybody)
    robot = replace(ANN, subject="robot", network=SYDNEY)
    _, busy = lived(robot, 300, everybody)
    _, calm = lived(robot, 1, everybody)
    assert busy == calm
    assert busy["n"] == 21


def test_a_browser_update_is_no_news_and_an_older_browser_is(office: Any) -> None:
    plain = score(ANN, *office)
    assert score(replace(ANN, agent=CHROME.format(152)), *office) == plain
    assert terms(replace(ANN, agent=CHROME.format(139)), *office)["older"] > 1
    assert "older" not in terms(replace(ANN, agent=FIREFOX.replace("150", "100")), *office)


def test_an_unusual_hour_counts_a_little(office: Any) -> None:
    night = terms(replace(ANN, now=NOW - 6 * 3600), *office)
    assert 0 < night["hour"] <= MEASURED["hour"].bound
    assert terms(ANN, *office)["hour"] < 0


def test_positions_say_nothing_in_a_known_network_with_a_known_browser(office: Any) -> None:
    elsewhere = replace(BERLIN, latitude=48.1, longitude=11.6)
    assert terms(replace(ANN, network=elsewhere), *office).keys().isdisjoint({"distance", "travel"})
    found = terms(replace(ANN, now=NOW + 29 * DAY + 60, network=replace(elsewhere, asn=64599)), *office)
    assert found["distance"] > 0
    assert found["travel"] > 0


def test_the_accuracy_radius_is_subtracted(office: Any) -> None:
    vague = replace(HAMBURG, accuracy_km=500.0)
    at = NOW + 29 * DAY + 60
    assert "travel" in terms(replace(ANN, now=at, network=HAMBURG), *office)
    assert terms(replace(ANN, now=at, network=vague), *office).keys().isdisjoint({"distance", "travel"})
    unknown = replace(HAMBURG, latitude=None, longitude=None, accuracy_km=None)
    assert terms(replace(ANN, now=at, network=unknown), *office).keys().isdisjoint({"distance", "travel"})


def test_an_enrolled_device_that_is_missing_is_noticed() -> None:
    profile, everybody = lived(replace(ANN, device_id="d1"), 30)
    assert terms(replace(ANN, device_id=""), profile, everybody)["enrolled"] > 0.8
    assert "enrolled" not in terms(replace(ANN, device_id="d2"), profile, everybody) or (
        terms(replace(ANN, device_id="d2"), profile, everybody)["enrolled"] <= 0
    )


def test_the_companys_network_is_one_place_whatever_the_address() -> None:
    home = replace(ANN, network=Network(company=True))
    profile, everybody = lived(home, 30)
    there = terms(replace(home, ip="10.99.1.1", network=Network("DE", 1, vpn=True)), profile, everybody)
    assert all(there.get(name, 0) <= 0 for name in ("ip", "asn", "country", "distance"))


def test_data_that_are_missing_are_news_where_they_were_there_before(office: Any) -> None:
    found = terms(replace(ANN, network=Network(flaw="broken")), *office)
    assert found["asn"] > 1
    assert found["country"] > 0


def test_what_is_known_better_than_the_user_agent_says_counts(office: Any) -> None:
    told = Program("chrome", 150, "windows", "desktop")
    assert score(replace(ANN, agent="?"), *office, program=told) == score(ANN, *office)
    other = Program("opera", 120, "android", "phone")
    assert score(ANN, *office, program=other) > score(ANN, *office) + 3


# ---- cold start ----


def test_at_first_nothing_is_strange_and_little_is_until_there_is_a_history() -> None:
    assert floor_at_zero(LOGINS.score(ANN, {}, {})) == []
    thief = replace(ANN, ip="198.51.100.1", network=SYDNEY, agent=FIREFOX)
    everybody = lived(replace(ANN, subject="bob"), 5)[1]
    scores = [score(thief, *lived(ANN, days, everybody)) for days in (1, 5, 20, 60)]
    assert scores == sorted(scores)
    assert scores[0] < 6 < scores[-1]


# ---- learning ----


def test_a_new_way_becomes_a_persons_own_within_a_few_sign_ins(office: Any) -> None:
    moved = replace(ANN, ip="203.0.113.5", network=HAMBURG)
    profile, everybody = office
    before = score(moved, profile, everybody)
    for _ in range(3):
        profile, everybody = LOGINS.learn(moved, profile, everybody)
    assert score(moved, profile, everybody) < before - 2


def test_what_is_not_seen_any_more_fades() -> None:
    profile, everybody = LOGINS.learn(replace(ANN, network=SYDNEY, ip="198.51.100.1"), {}, {})
    assert terms(replace(ANN, network=SYDNEY), profile, everybody).get("asn", 0) <= 0
    for day in range(1, 200):
        profile, everybody = LOGINS.learn(replace(ANN, now=NOW + day * DAY), profile, everybody)
    assert terms(replace(ANN, network=SYDNEY), profile, everybody)["asn"] > 1
    assert all(place[0] > 0 for place in profile["p"])


def test_what_is_handed_in_is_never_changed_and_a_steady_person_changes_nothing_for_everybody(office: Any) -> None:
    profile, everybody = office
    before = json.dumps([profile, everybody])
    _, after = LOGINS.learn(replace(ANN, now=NOW + 40 * DAY), profile, everybody)
    assert after is everybody
    LOGINS.learn(replace(ANN, network=SYDNEY, agent=FIREFOX), profile, everybody)
    assert json.dumps([profile, everybody]) == before


def test_documents_of_another_format_count_as_nothing(office: Any) -> None:
    profile, everybody = office
    old = {**profile, "v": 99}
    assert LOGINS.score(ANN, old, everybody) == LOGINS.score(ANN, {}, everybody)
    assert LOGINS.learn(ANN, old, {"v": 99})[0] == LOGINS.learn(ANN, {}, {})[0]


# ---- the contract, for anything at all ----

numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
networks = st.builds(
    Network,
    country=st.none() | st.text(max_size=8),
    asn=st.none() | st.integers(-1, 1 << 40),
    latitude=numbers,
    longitude=numbers,
    accuracy_km=numbers,
    vpn=st.booleans(),
    company=st.booleans(),
    flaw=st.sampled_from(["", "absent", "broken"]),
)
observations = st.builds(
    Observation,
    now=st.floats(0, 4e9),
    subject=st.text(max_size=5),
    session=st.just("s"),
    device_id=st.text(max_size=5),
    ip=st.ip_addresses().map(str) | st.text(max_size=60),
    network=networks,
    ja4=st.text(max_size=60),
    agent=st.sampled_from([CHROME.format(150), FIREFOX, "curl/8"]) | st.text(max_size=300),
    hints=st.text(max_size=300),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(observations, min_size=1, max_size=12))
def test_anything_is_scored_within_the_bounds_and_learned_as_json(seen: list[Observation]) -> None:
    profile: Profile = {}
    everybody: Profile = {}
    bounds = {**COUNTED, **MEASURED}
    for observation in seen:
        terms = LOGINS.score(observation, profile, everybody)
        assert len({term.name for term in terms}) == len(terms)
        for term in terms:
            trait = bounds[term.name.removeprefix("login_")]
            assert -trait.relief <= term.value <= trait.bound
        kept = floor_at_zero(terms)
        assert math.fsum(term.value for term in kept) == pytest.approx(
            min(8.0, max(0.0, math.fsum(term.value for term in terms))), abs=0.02
        )
        profile, everybody = LOGINS.learn(observation, profile, everybody)
        assert json.loads(json.dumps([profile, everybody], allow_nan=False)) == [profile, everybody]


def test_profile_and_population_stay_small_whatever_comes() -> None:
    profile: Profile = {}
    everybody: Profile = {}
    for number in range(1_500):
        observation = Observation(
            NOW + number * 3_600,
            f"u{number}",
            "s",
            ip=f"10.{number % 250}.{number // 250}.9",
            network=Network(
                chr(65 + number % 26) + chr(65 + number // 26 % 26), 1 + number, "", number % 80, number % 170, 5.0
            ),
            ja4=f"t13_{number:012x}_z",
            agent=f"Thing{chr(97 + number % 26)}{'abcdefghijklmnopqrst'[number % 20]}{number}/{number}" + "x" * 400,
            hints=f"brand {number}" * 20,
        )
        profile, everybody = LOGINS.learn(observation, profile, everybody)
        if number % 3 == 0:
            _, everybody = LOGINS.learn(observation, {}, everybody)
    assert len(json.dumps(profile)) < 6_000
    assert len(json.dumps(everybody)) < 12_000
    for name, trait in COUNTED.items():
        assert len(profile["t"][name]) <= trait.kept
        assert len(everybody["t"].get(name, ())) <= trait.shared


def test_a_scoring_costs_little(office: Any) -> None:
    thief = replace(ANN, ip="198.51.100.1", network=SYDNEY, agent=FIREFOX)
    assert cost(lambda: LOGINS.score(thief, *office)) < 20
