"""The detection world, small: it is the same for a seed, its attackers are what they are called, its figures add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from bench import detection
from bench.detection_baselines import CountryNeverSeen, Freeman
from bench.detection_memory import Memory
from bench.detection_places import COUNTRIES, Browser, Line, located, newest
from bench.detection_runs import WORLDS, Judged, Run, facts_of, lived
from bench.detection_sessions import bound, replays, sprayed
from bench.detection_travellers import ATTACKERS as OTHER_ATTACKERS
from bench.detection_world import ATTACKERS, SignIn, World
from gateway.core.ports.pipeline import Network
from gateway.core.signals import Observation
from gateway.core.subject import Identity, Session
from gateway.risk.scoring import observe
from gateway.risk.user_agents import read


@pytest.fixture(scope="module")
def happened() -> list[SignIn]:
    return World(7, people=60, days=60, attacked=5).sign_ins()


@pytest.fixture(scope="module")
def run() -> Run:
    return lived(7, people=40, days=50)


# ---- the world ----


def test_a_seed_makes_one_world_in_order_of_time(happened: list[SignIn]) -> None:
    assert World(7, people=60, days=60, attacked=5).sign_ins() == happened
    assert World(8, people=60, days=60, attacked=5).sign_ins() != happened
    assert [one.seen.now for one in happened] == sorted(one.seen.now for one in happened)
    assert set(Counter(one.who for one in happened)) == {"honest", *ATTACKERS}


def test_nobody_is_attacked_before_the_first_sign_in(happened: list[SignIn]) -> None:
    known = set()
    for one in happened:
        if one.who == "honest":
            known.add(one.person)
        assert one.person in known


def test_attackers_are_what_they_are_called(happened: list[SignIn]) -> None:
    asns: dict[int, set[int | None]] = {}
    programs: dict[int, set[tuple[str, str]]] = {}
    for one in happened:
        if one.who == "honest":
            asns.setdefault(one.person, set()).add(one.seen.network.asn)
            program = read(one.seen.agent)
            programs.setdefault(one.person, set()).add((program.browser, program.os))
    exact = [one for one in happened if one.who == "exact"]
    program = [(read(one.seen.agent).browser, read(one.seen.agent).os) in programs[one.person] for one in exact]
    assert sum(program) > 0.8 * len(exact)  # of a laptop that stood unused the owner shows nothing
    assert sum(one.seen.network.asn in asns[one.person] for one in exact) > 0.7 * len(exact)
    vpn = [one for one in happened if one.who == "vpn"]
    assert sum(one.seen.network.asn in asns[one.person] for one in vpn) < 0.2 * len(vpn)
    assert sum(one.seen.ja4.split("_")[1] == "e8f1e7e78f70" for one in happened if one.who == "naive") > 0


def test_what_the_data_say_of_an_address_stays_and_is_sometimes_wrong() -> None:
    at = Line("DE", 0, "fixed", 0)
    found = [located(f"20.1.{number}", at, 7) for number in range(2_000)]
    assert found == [located(f"20.1.{number}", at, 7) for number in range(2_000)]
    assert 0.005 < sum(network.country != "DE" for network in found) / 2_000 < 0.05
    assert any(network.latitude is None for network in found)
    assert any(network.asn is None for network in found)


def test_browsers_are_read_back_as_what_they_are() -> None:
    for name, os in (("chrome", "windows"), ("edge", "windows"), ("opera", "windows"), ("safari", "macos"),
                     ("safari", "ios"), ("firefox", "linux"), ("chrome", "android"), ("samsung", "android"),
                     ("firefox", "android")):  # fmt: skip
        browser = Browser(name, os)
        program = read(browser.shown(newest(browser, 60), day=60)[0])
        assert (program.browser, program.os, program.version) == (name, os, newest(browser, 60))
        assert newest(browser, 400) > newest(browser, 0)


def test_the_request_of_a_sign_in_is_seen_as_it_was_made(happened: list[SignIn]) -> None:
    identity, session = Identity("https://id", "ann", "session", "h", 9e9), Session("s", 1.0)
    for one in happened[:50]:
        seen = observe(session, identity, None, facts_of(one.seen), one.seen.network, one.seen.now)
        assert (seen.agent, seen.ja4, seen.ip) == (one.seen.agent, one.seen.ja4, one.seen.ip)
        assert bool(seen.hints) == bool(one.seen.hints)


def test_every_country_has_neighbours_that_are_there() -> None:
    assert all(near in COUNTRIES for country in COUNTRIES.values() for near in country.near)


# ---- a run ----


def test_a_run_judges_everything_and_catches_strangers_more_than_owners(run: Run) -> None:
    assert {one.who for one in run.judged} == {"honest", *ATTACKERS}
    assert len(run.scoring_us) == len(run.assessing_us) == len(run.judged)
    known = [one for one in run.judged if one.history >= 10]
    for scorer in ("pattern", "assessed"):
        mean = {
            who: sum(getattr(one, scorer) for one in group) / len(group)
            for who in ("honest", "vpn", "naive")
            if (group := [one for one in known if one.who == who])
        }
        assert mean["honest"] < 0.5
        assert 2 < mean["vpn"] < mean["naive"]
    assert 0 < run.profile_bytes < 6_000
    assert 0 < run.population_bytes < 12_000


def test_thresholds_come_from_the_tuned_world_and_shares_from_the_reported_one() -> None:
    def judged(who: str, score: float, level: str = "none") -> Judged:
        return Judged(who, 20, score, score, float(score > 5), score, level)  # type: ignore[arg-type]

    tuned = [judged("honest", number / 1_000) for number in range(1_000)]
    reported = [judged("honest", 0.1), judged("naive", 9.0, "high"), judged("naive", 0.5), judged("vpn", 0.995)]
    found = detection.shares(tuned, reported)
    assert found["pattern"]["fpr1"]["threshold"] == pytest.approx(0.989)
    assert found["pattern"]["fpr01"]["threshold"] == pytest.approx(0.998)
    assert (found["pattern"]["fpr1"]["naive"], found["pattern"]["fpr1"]["vpn"]) == (0.5, 1.0)
    assert (found["pattern"]["fpr01"]["vpn"], found["pattern"]["fpr1"]["honest"]) == (0.0, 0.0)
    assert found["country"]["own"]["naive"] == found["high"]["own"]["naive"] == 0.5


def test_prompts_are_told_by_length_of_history() -> None:
    levels = ((0, "high"), (1, "high"), (1, "none"), (9, "none"), (10, "high"), (150, "none"), (150, "medium"))
    judged = [Judged("honest", history, 0.0, 0.0, 0.0, 0.0, level) for history, level in levels]
    found = detection.prompts(judged)
    assert found["high"] == {
        "1": 50.0, "2-4": 0.0, "5-9": 0.0, "10-19": 100.0, "20-49": 0.0, "50-99": 0.0, "100+": 0.0,
        "known": pytest.approx(100 / 3), "new": pytest.approx(100 / 3),
    }  # fmt: skip
    assert found["medium"]["100+"] == 50.0


# ---- baselines ----


def test_the_country_rule_and_freemans_formula_learn_what_they_see() -> None:
    seen = Observation(0.0, "ann", "s", ip="192.0.2.7", network=Network("DE", 1), agent="curl/8")
    away = replace(seen, network=Network("BR", 2), ip="198.51.100.1", agent="wget/1")
    for baseline in (CountryNeverSeen(), Freeman()):
        for number in range(40):
            baseline.learn(replace(seen, subject="bob", network=Network("BR", 2), ip=f"198.51.100.{number}"))
            baseline.learn(seen)
        assert baseline.score(away) > baseline.score(seen)


# ---- sessions ----


async def test_no_replay_of_a_bound_session_is_served() -> None:
    assert await bound(7, 40) == {"tried": 40, "served": 0}


async def test_scripts_with_a_stolen_cookie_and_sprayers_are_caught() -> None:
    found = await replays(7, 12)
    assert found["script_first"] == 100.0
    assert found["same_build_vpn_in_turn"] > 80.0
    assert (await sprayed(7, 5))["spraying_100_accounts"] == 100.0


async def test_frozen_memory_forgets_what_is_written() -> None:
    memory = Memory()
    assert await memory.put("c", "k", b"1", 10.0, version=0)
    memory.is_frozen = True
    assert await memory.put("c", "k", b"2", 10.0, version=1)
    found = await memory.get("c", "k", 0.0)
    assert found is not None
    assert (found.value, found.version) == (b"1", 1)
    assert await memory.get("c", "k", 10.0) is None


# ---- worlds of another make ----


@pytest.mark.parametrize("world", ["travellers", "shifts"])
def test_a_world_of_another_make_has_its_attackers_and_nobody_is_attacked_first(world: str) -> None:
    make = WORLDS[world]
    happened = make(7, 40, 60).sign_ins()
    assert make(7, 40, 60).sign_ins() == happened
    assert make(8, 40, 60).sign_ins() != happened
    assert [event.seen.now for event in happened] == sorted(event.seen.now for event in happened)
    assert {event.who for event in happened} == {"honest", *OTHER_ATTACKERS}
    first: dict[int, str] = {}
    for event in happened:
        first.setdefault(event.person, event.who)
    assert set(first.values()) == {"honest"}


def test_an_attacker_of_the_same_country_shows_the_victims_kind_of_browser() -> None:
    shown: dict[int, set[tuple[str, str]]] = {}
    attacks = 0
    for event in WORLDS["shifts"](7, 40, 120).sign_ins():
        program = read(event.seen.agent)
        if event.who == "honest":
            shown.setdefault(event.person, set()).add((program.browser, program.os))
        elif event.who == "same_country" and len(shown[event.person]) > 1:
            attacks += 1
            assert (program.browser, program.os) in shown[event.person]
    assert attacks
