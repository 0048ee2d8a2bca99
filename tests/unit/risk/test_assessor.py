"""The assessor over a real store: what it adds up, what it learns, what a proof answers, and what fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.decision import NO_SIGNAL, RiskTerm
from gateway.core.ports.pipeline import Network
from gateway.core.ports.stores import StoreDown
from gateway.core.signals import Observation, Scope, SignalResult
from gateway.core.subject import Device, Identity, Session, subject_key
from gateway.risk.memory import RiskMemory
from gateway.risk.scoring import Thresholds
from tests.support.cost import cost_of
from tests.support.risk_world import ANN, NOW, SESSION, SYDNEY, names, stored_keys


async def test_nobody_has_no_risk_and_a_steady_person_has_none_either(world: Any) -> None:
    assert await world.ask(identity=None, session=None, network=Network(flaw="broken")) is NO_SIGNAL
    for _ in range(5):
        assert await world.ask() is NO_SIGNAL


async def test_the_terms_sum_to_the_score_and_stand_in_order(world: Any) -> None:
    await world.ask()
    report = await world.thief()
    assert report.level == "high"
    assert report.score == pytest.approx(sum(term.value for term in report.terms))
    assert [term.value for term in report.terms] == sorted((term.value for term in report.terms), reverse=True)
    assert {"cookie_theft_ja4", "country_change", "new_network", "new_device"} <= names(report)


async def test_a_stolen_cookie_stays_suspicious_and_its_owner_is_let_be(world: Any) -> None:
    await world.ask()
    for _ in range(3):
        assert (await world.thief(later=100)).level == "high"
        assert (await world.ask(later=100)).level in {"none", "low"}


async def test_two_holders_in_turn_are_seen_by_every_worker(world: Any) -> None:
    first, second = world.another(), world.another()
    await world.ask(by=first)
    await world.thief(by=second, later=1)
    assert "concurrent_use" in names(await world.ask(by=second, later=1))
    assert "concurrent_use" in names(await world.ask(by=first, later=6))


async def test_a_session_that_is_bound_to_a_device_is_not_judged_by_its_looks(world: Any) -> None:
    bound = replace(SESSION, bound_by=("device",))
    device = Device("d1", "q" * 43)
    await world.ask(session=bound, device=device)
    report = await world.thief(session=bound, device=device)
    assert not any(name.startswith(("cookie_theft", "concurrent_use")) for name in names(report))


# ---- learning ----


async def test_nobody_is_learned_from_a_suspicious_request(world: Any) -> None:
    await world.ask()
    before = await world.assessor.history("https://id", "ann")
    await world.thief()
    assert await world.assessor.history("https://id", "ann") == before
    assert list(before["new_network"]) == ["as64500"]


async def test_a_person_without_history_and_second_factor_is_asked_for_one_and_then_known(world: Any) -> None:
    plain = replace(ANN, amr=("pwd",))
    for _ in range(3):
        report = await world.ask(identity=plain)
        assert (report.level, names(report)) == ("high", {"no_history"})
    elevated = replace(SESSION, elevated_at=world.clock.wall(), elevated_until=world.clock.wall() + 900)
    assert await world.ask(identity=plain, session=elevated) is NO_SIGNAL
    assert await world.ask(identity=plain, session=replace(SESSION, id="l_next"), later=2000) is NO_SIGNAL


async def test_a_second_factor_at_the_sign_in_is_enough_to_be_known(world: Any) -> None:
    assert await world.ask() is NO_SIGNAL
    assert (await world.assessor.history("https://id", "ann"))["_"] == {"since": world.clock.wall()}


async def test_a_program_is_known_by_what_it_does_first(world: Any) -> None:
    robot = Identity("https://id", "robot", "jwt", "h", NOW + 9e4)
    session = Session("b_robot", NOW)
    assert await world.ask(identity=robot, session=session) is NO_SIGNAL
    assert (await world.thief(identity=robot, session=session)).level == "high"


async def test_a_history_can_be_forgotten(world: Any) -> None:
    await world.ask()
    assert await world.assessor.forget("https://id", "ann")
    assert await world.assessor.history("https://id", "ann") == {}
    assert not await world.assessor.forget("https://id", "ann")


# ---- proofs ----


async def test_a_proof_answers_what_it_was_asked_for_where_it_was_asked(world: Any) -> None:
    await world.ask()
    assert (await world.thief()).level == "high"
    elevated = replace(SESSION, elevated_at=world.clock.wall(), elevated_until=world.clock.wall() + 900)
    assert await world.thief(session=elevated) is NO_SIGNAL
    assert await world.thief(session=elevated, later=60) is NO_SIGNAL


async def test_a_proof_in_one_place_answers_nothing_in_another(world: Any) -> None:
    await world.ask()
    elevated = replace(SESSION, elevated_at=world.clock.wall(), elevated_until=world.clock.wall() + 900)
    assert await world.ask(session=elevated) is NO_SIGNAL
    assert (await world.thief(session=elevated, later=100)).level == "high"


async def test_a_proof_answers_missing_data_until_it_ends(world: Any) -> None:
    lost = Network(flaw="broken")
    await world.ask()
    assert (await world.ask(network=lost)).level == "high"
    elevated = replace(SESSION, elevated_at=world.clock.wall(), elevated_until=world.clock.wall() + 900)
    assert await world.ask(network=lost, session=elevated) is NO_SIGNAL
    assert await world.ask(network=lost, session=elevated, later=600) is NO_SIGNAL
    assert names(await world.ask(network=lost, session=elevated, later=600)) == {"network_data"}


# ---- what is missing or broken ----


@pytest.mark.parametrize("flaw", ["absent", "broken"])
async def test_missing_and_broken_country_data_ask_for_a_step_up_at_once(world: Any, flaw: Any) -> None:
    report = await world.ask(network=Network(flaw=flaw))
    assert (report.level, names(report)) == ("high", {"network_data"})


async def test_in_the_companys_own_network_country_data_are_not_missed(world: Any) -> None:
    assert await world.ask(network=Network(company=True, flaw="absent")) is NO_SIGNAL
    assert await world.ask(network=Network(vpn=True, flaw="broken")) is NO_SIGNAL


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_a_clock_that_is_set_by_an_hour_asks_for_a_step_up(world: Any, step: Any) -> None:
    await world.ask()
    world.clock.step = step
    report = await world.ask()
    assert report.level == "high"
    assert "clock_set" in names(report)
    assert "clock_set" in names(await world.ask(later=100))


async def test_a_clock_that_was_set_forward_is_trusted_again_after_a_while(world: Any) -> None:
    await world.ask()
    world.clock.step = 3600.0
    await world.ask()
    assert await world.ask(later=400) is NO_SIGNAL


async def test_a_clock_that_was_set_back_is_noticed_by_a_worker_that_starts_afterwards(world: Any) -> None:
    await world.ask()
    world.clock.step = -3600.0
    report = await world.ask(by=world.another())
    assert "clock_set" in names(report)
    elevated = replace(SESSION, elevated_at=world.clock.wall(), elevated_until=world.clock.wall() + 900)
    assert await world.ask(session=elevated, later=400) is NO_SIGNAL
    assert await world.ask(session=elevated, later=1000, by=world.another()) is NO_SIGNAL


async def test_a_store_that_is_down_is_no_report(world: Any) -> None:
    async def down(*_: object) -> None:
        raise StoreDown

    world.documents.get = down
    with pytest.raises(StoreDown):
        await world.ask()


async def test_a_document_of_another_format_counts_as_nothing(world: Any) -> None:
    await world.ask()
    before = await world.assessor.history("https://id", "ann")
    assert before["v"] == 1
    name = next(iter([key async for key in stored_keys(world, "risk_profile")]))
    await world.documents.overwrite("risk_profile", name, b'{"v": 99, "new_network": 7}', NOW + 9e6)
    assert await world.assessor.history("https://id", "ann") == {}
    assert names(await world.ask(identity=replace(ANN, amr=()))) == {"no_history"}


class Bad:
    """A signal that breaks the contract."""

    name, failures, bound = "bad", False, 2.0
    schema: Mapping[str, Any] = {}
    scope: Scope = "session"

    def __init__(self, *terms: RiskTerm) -> None:
        self.terms = terms

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        return SignalResult(self.terms, memory, memory)


@pytest.mark.parametrize(
    "term", [RiskTerm("bad", -1.0), RiskTerm("bad", float("nan")), RiskTerm("bad", float("inf")), RiskTerm("good", 1.0)]
)
async def test_a_signal_that_gives_relief_or_nonsense_is_no_report(world: Any, term: Any) -> None:
    with pytest.raises(ValueError, match="breaks its contract"):
        await world.ask(by=world.another([Bad(term)]))


async def test_a_signal_is_held_to_its_bound(world: Any) -> None:
    report = await world.ask(
        by=world.another([Bad(RiskTerm("bad", 1.5), RiskTerm("bad_x", 9.0), RiskTerm("bad_y", 1))])
    )
    assert {term.name: term.value for term in report.terms} == {"bad": 1.5, "bad_x": 0.5}
    assert (report.score, report.level) == (2.0, "medium")


async def test_own_thresholds_move_the_levels(world: Any) -> None:
    found = Bad(RiskTerm("bad", 1.0))
    levels = [(await world.ask(by=world.another([found], thresholds=Thresholds(*limits)))).level for limits in LIMITS]
    assert levels == ["none", "low", "medium", "high"]


LIMITS = [(1.1, 2, 3), (1.0, 2, 3), (0.5, 1.0, 3), (0.1, 0.2, 1.0)]


# ---- attacks across people ----


async def test_spraying_is_seen_across_people_and_workers(world: Any) -> None:
    first, second = world.another(), world.another()
    await world.ask(by=second)
    for number in range(20):
        first.record_failure("login_failed", "198.51.100.9", SYDNEY, account=f"user{number}")
    await first.flush()
    assert "password_spraying" in names(await world.thief(by=second))
    assert "password_spraying" not in names(await world.ask(by=second))


async def test_an_account_under_attack_asks_even_its_owner(world: Any) -> None:
    await world.ask()
    for number in range(5):
        network = Network("US", 100 + number)
        world.assessor.record_failure(
            "factor_invalid", f"203.0.113.{number}", network, account=subject_key("https://id", "ann")
        )
    report = await world.ask()
    assert names(report) == {"credential_stuffing"}
    assert "credential_stuffing" in names(await world.thief(network=Network("US", 101)))


async def test_failures_are_written_in_batches(world: Any) -> None:
    puts = []
    write = world.documents.put

    async def put(collection: str, *args: Any, **kwargs: Any) -> bool:
        puts.append(collection)
        return bool(await write(collection, *args, **kwargs))

    world.documents.put = put
    for number in range(1_000):
        world.assessor.record_failure("login_failed", "198.51.100.9", SYDNEY, account=f"user{number % 3}")
    assert puts == []
    await world.assessor.flush()
    assert sorted(puts) == ["risk_population", *["risk_profile"] * 3]


async def test_failures_are_not_lost_while_the_store_is_down(world: Any) -> None:
    world.assessor.record_failure("login_failed", "198.51.100.9", SYDNEY, account="user")
    get = world.documents.get

    async def down(*_: object) -> None:
        raise StoreDown

    world.documents.get = down
    with pytest.raises(StoreDown):
        await world.assessor.flush()
    world.documents.get = get
    await world.assessor.flush()
    assert await world.documents.get("risk_population", "198.51.100.0/24", world.clock.wall()) is not None


# ---- the sign-in ----


class Pattern:
    """Scores by how often the network's country was seen; keeps what it is given."""

    def score(self, seen: Observation, profile: Mapping[str, Any], population: Mapping[str, Any]) -> list[RiskTerm]:
        country = str(seen.network.country)
        return [RiskTerm("login_country", 0.0 if country in profile else 5.0), RiskTerm("login_hour", -0.5)]

    def learn(self, seen: Observation, profile: Mapping[str, Any], population: Mapping[str, Any]) -> Any:
        country = str(seen.network.country)
        return {**profile, country: profile.get(country, 0) + 1}, {**population, country: 1}


async def test_a_sign_in_is_scored_once_and_learned_from_once_it_is_proven(world: Any) -> None:
    assessor = world.another([], logins=Pattern())
    report = await world.ask(by=assessor)
    assert [(term.name, term.value) for term in report.terms] == [("login_country", 4.5)]
    assert (await world.ask(by=assessor)).score == 4.5
    assert "login" not in await assessor.history("https://id", "ann")
    elevated = replace(SESSION, elevated_at=world.clock.wall(), elevated_until=world.clock.wall() + 900)
    for _ in range(3):
        assert await world.ask(by=assessor, session=elevated) is NO_SIGNAL
    assert (await assessor.history("https://id", "ann"))["login"] == {"DE": 1}
    assert await world.ask(by=assessor, session=elevated, later=3000) is NO_SIGNAL  # the proof ended, the question too
    for number in range(3):
        assert await world.ask(by=world.another([], logins=Pattern()), session=Session(f"l_{number}", NOW)) is NO_SIGNAL
    assert (await assessor.history("https://id", "ann"))["login"] == {"DE": 4}
    everybody = await RiskMemory(world.documents, world.clock.wall).read("everybody", "logins")
    assert everybody.of("login") == {"DE": 1}


async def test_what_speaks_for_a_sign_in_is_no_relief_for_anything_else(world: Any) -> None:
    class Glad(Pattern):
        def score(self, *_: Any) -> list[RiskTerm]:
            return [RiskTerm("login_country", 1.0), RiskTerm("login_hour", -9.0)]

    report = await world.ask(by=world.another([Bad(RiskTerm("bad", 2.0))], logins=Glad()))
    assert report.score == 2.0


# ---- cost and traces ----


async def test_an_unchanged_session_is_not_scored_again_for_a_moment(world: Any) -> None:
    looks = []

    class Counting(Bad):
        def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
            looks.append(seen.now)
            return super().assess(seen, memory)

    assessor = world.another([Counting(RiskTerm("bad", 1.0))])
    for _ in range(10):
        assert (await world.ask(by=assessor, later=0.1)).score == 1.0
    assert len(looks) == 1
    await world.ask(by=assessor, later=0.1, agent="other")
    await world.ask(by=assessor, later=0.1)
    assert len(looks) == 3
    await world.ask(by=assessor, later=6)
    assert len(looks) == 4


async def test_the_hot_path_costs_less_than_twenty_microseconds(world: Any) -> None:
    await world.ask()
    assert await cost_of(lambda: world.ask(later=0.0)) < 4  # with the making of the request


async def test_who_keeps_what_is_open_hears_when_the_level_rises_and_only_then(world: Any) -> None:
    heard = []

    async def rose(session_id: Any) -> None:
        heard.append(session_id)

    assessor = world.another(on_level_raised=rose)
    await world.ask(by=assessor)
    await world.ask(by=assessor)
    assert heard == []
    assert (await world.thief(by=assessor)).level == "high"
    assert heard == [SESSION.id]
    assessor.invalidate()
    await world.thief(by=assessor)
    assert heard == [SESSION.id], "whoever judges again because of it must not be told once more"
    for _ in range(3):
        await world.ask(by=assessor, later=1)
        await world.thief(by=assessor, later=1)
    assert heard == [SESSION.id], "two holders in turn do not flood the store"
