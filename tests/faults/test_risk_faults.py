"""What becomes of a request when the data behind its risk are missing, broken or false: the real databases, the real
assessor, the starter policies, and the answer that comes out in the end."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.geo import GeoNetworks
from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.config.models import Allow, Service
from gateway.core.canonical import admit
from gateway.core.decision import Decision, RiskReport
from gateway.core.request import Peer, RawRequest, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Role, Session
from gateway.policy.bundle.loader import load, service_data
from gateway.policy.contract import build_document
from gateway.policy.decider import Decider
from gateway.policy.engines.embedded import EmbeddedEngine
from gateway.risk.assessor import Assessor
from gateway.risk.login_pattern import LoginPatternModel
from gateway.risk.memory import RiskMemory
from plugins.signals import builtin
from tests.support.paths import ROOT, VECTORS

NOW = 1_800_000_000.0
CITIES = VECTORS / "mmdb" / "GeoLite2-City-Test.mmdb"
LONDON, LONDON_TOO, SWEDEN, SEATTLE, NOWHERE = (
    "81.2.69.160",
    "81.2.69.161",
    "89.160.20.112",
    "216.160.83.56",
    "10.1.2.3",
)
PROXY = "192.0.2.1"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
JA4, OTHER_JA4 = "t13d1516h2_8daaf6152771_b186095e22b6", "t13d3112h2_e8f1e7e78f70_6bebaf5329ac"
STAFF = Role("staff")
ANN = Identity("https://id", "ann", "session", "h", NOW + 9e4, roles=(STAFF,), amr=("pwd", "otp"), auth_time=NOW - 10)
PLAIN = Session("l_ann", NOW - 5)
BOUND = replace(PLAIN, bound_by=("device",))
LAPTOP = Device("d1", "q" * 43, "ann")
ROUTES = {name: Route(name, f"{name}.corp", sensitivity=name) for name in ("normal", "high")}


class Clock:
    """Wall clock and counter; `step` sets the one and not the other."""

    def __init__(self) -> None:
        self.at, self.step = 0.0, 0.0

    def wall(self) -> float:
        return NOW + self.at + self.step

    def counter(self) -> float:
        return 50.0 + self.at


class World:
    """Networks, an assessor and the starter policies, and one person who uses them."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.path = folder / "data.mmdb"
        self.store = SqliteStore(folder / "gateway.sqlite", b"k" * 32, clock=self.clock.wall)
        self.networks = GeoNetworks([])
        self.assessor = self.worker()
        services = {
            name: Service(host=route.host, upstream="http://127.0.0.1:9", allow=Allow(roles=("staff",)))
            for name, route in ROUTES.items()
        }
        self.decider = Decider(EmbeddedEngine(load(ROOT / "policies", service_data(services)), deadline_s=5))
        self.report = RiskReport(0.0, "none", ())

    def worker(self) -> Assessor:
        """A worker that starts now, on the same store."""
        return Assessor(
            RiskMemory(SqliteDocuments(self.store), self.clock.wall),
            builtin(),
            logins=LoginPatternModel(),
            clock=self.clock.wall,
            monotonic=self.clock.counter,
        )

    def use(self, *sources: Path | bytes, company: Sequence[str] = ()) -> None:
        """The gateway starts with these databases: a file, or bytes to put into one."""
        if sources and isinstance(sources[0], bytes):
            self.path.write_bytes(sources[0])
        elif sources:
            shutil.copy(sources[0], self.path)
        self.networks = GeoNetworks(
            [self.path] if sources else [],
            company=[ip_network(one) for one in company],
            monotonic=self.clock.counter,
        )

    def replaced(self, content: bytes | None) -> None:
        """The file is replaced under the running gateway; None removes it."""
        if content is None:
            self.path.unlink()
        else:
            fresh = self.path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.replace(self.path)
        self.clock.at += 3
        self.networks.lookup(LONDON)
        for thread in threading.enumerate():
            if thread.name == "geo":
                thread.join(10)

    async def ask(
        self,
        ip: str = LONDON,
        *,
        forwarded: str = "",
        trusted: str = "",
        session: Session = BOUND,
        ja4: str = JA4,
        service: str = "normal",
        later: float = 6.0,
        by: Assessor | None = None,
    ) -> Decision:
        self.clock.at += later
        route = ROUTES[service]
        fields = [(b"host", route.host.encode()), (b"user-agent", CHROME.encode())]
        if forwarded:
            fields.append((b"x-forwarded-for", forwarded.encode()))
        peer = Peer(ip, 4711, sni=route.host, ja4=ja4)
        proxies = [ip_network(trusted)] if trusted else []
        facts = admit(RawRequest(b"GET", b"", b"/", fields, "1.1"), peer, trusted_proxies=proxies)
        assert isinstance(facts, RequestFacts), facts
        network = self.networks.lookup(facts.client_ip)
        self.report = await (by or self.assessor).assess(session, ANN, LAPTOP, facts, network, route)
        identity = self.proven(session)
        document = build_document(facts, route, LAPTOP, identity, session, self.report, network, self.clock.wall())
        decision = await self.decider.decide(document)
        assert isinstance(decision, Decision), decision
        return decision

    @staticmethod
    def proven(session: Session) -> Identity:
        return replace(ANN, amr=(*ANN.amr, *session.elevated_amr)) if session.elevated_until else ANN

    def elevated(self, session: Session = BOUND) -> Session:
        """The session with a proof of this very moment."""
        at = self.clock.wall()
        return replace(session, elevated_at=at, elevated_until=at + 300, elevated_amr=("otp",))

    def terms(self) -> set[str]:
        return {term.name for term in self.report.terms}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.decider.close()
    await made.store.close()


def said(decision: Decision) -> tuple[Any, ...]:
    return decision.effect, *decision.reasons


ALLOWED, ASKED = ("allow", "policy_ok"), ("step_up", "risk_high")


# ---- databases ----

GOOD = CITIES.read_bytes()
BAD: dict[str, bytes] = {
    "empty": b"",
    "garbage": b"no database at all\n" * 4_000,
    "cut short": GOOD[: len(GOOD) // 2],
    "without its end": GOOD[:-200],
    "only its end": GOOD[-2_000:],
    "zeros": bytes(len(GOOD)),
    "a wrong tree": (VECTORS / "mmdb" / "GeoIP2-City-Test-Invalid-Node-Count.mmdb").read_bytes(),
    "a circle": (VECTORS / "mmdb" / "cyclic-data-structure.mmdb").read_bytes(),
}


async def test_with_good_data_a_steady_person_is_let_in(world: World) -> None:
    world.use(CITIES)
    for _ in range(3):
        assert said(await world.ask()) == ALLOWED
    assert world.report.level == "none"


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_database_asks_for_a_proof_and_neither_lets_in_nor_locks_out(world: World, kind: str) -> None:
    world.use(BAD[kind])
    for ip in (LONDON, SEATTLE, NOWHERE, "2001:218::1"):
        decision = await world.ask(ip, session=replace(BOUND, id=f"l_{ip}"))
        assert said(decision) == ASKED, world.report
        assert decision.reactions == ()
        assert "network_data" in world.terms()
    proof = world.elevated()
    assert said(await world.ask(session=proof)) == ALLOWED, "a proof answers for it"


async def test_without_any_database_a_proof_is_asked_for_but_from_the_companys_own_networks(world: World) -> None:
    world.use(company=["10.0.0.0/8"])
    assert said(await world.ask(NOWHERE)) == ALLOWED
    assert said(await world.ask(LONDON, session=replace(BOUND, id="l_2"))) == ASKED
    assert world.terms() >= {"network_data"}


async def test_a_file_that_is_not_there_asks_for_a_proof(world: World, tmp_path: Path) -> None:
    world.networks = GeoNetworks([tmp_path / "nowhere.mmdb"])
    assert said(await world.ask()) == ASKED


@pytest.mark.parametrize("content", [*BAD.values(), None], ids=[*BAD, "removed"])
async def test_a_bad_file_under_a_running_gateway_leaves_the_old_data_in_use(
    world: World, content: bytes | None
) -> None:
    world.use(CITIES)
    assert said(await world.ask()) == ALLOWED
    world.replaced(content)
    assert said(await world.ask()) == ALLOWED
    assert world.networks.lookup(LONDON).country == "GB"
    decision = await world.ask(SEATTLE, service="high")
    assert said(decision) == ("step_up", "risk_medium"), "and they are used"
    assert "country_change" in world.terms()


async def test_a_good_file_instead_of_a_bad_one_ends_the_asking(world: World) -> None:
    world.use(BAD["cut short"])
    assert said(await world.ask()) == ASKED
    world.replaced(GOOD)
    assert said(await world.ask()) == ALLOWED


async def test_a_file_cut_short_in_place_takes_nobody_down(world: World) -> None:
    world.use(CITIES)
    assert said(await world.ask()) == ALLOWED
    with world.path.open("r+b") as file:
        file.truncate(1_000)
    assert said(await world.ask()) == ALLOWED
    for ip in (LONDON_TOO, SWEDEN, SEATTLE):
        assert world.networks.lookup(ip).country in {"GB", "SE", "US"}


# ---- addresses ----


async def test_a_stranger_cannot_say_where_it_is(world: World) -> None:
    world.use(CITIES)
    assert said(await world.ask()) == ALLOWED
    seen = await world.ask(SEATTLE, forwarded=LONDON, service="high")
    assert said(seen) == ("step_up", "risk_medium")
    assert "country_change" in world.terms()
    home = await world.ask(LONDON, forwarded=SEATTLE, service="high")
    assert said(home) == ALLOWED, "nor can it make somebody look as if they were elsewhere"


async def test_a_trusted_proxy_is_believed(world: World) -> None:
    world.use(CITIES)
    through = {"trusted": f"{PROXY}/32", "service": "high"}
    assert said(await world.ask(PROXY, forwarded=LONDON, **through)) == ALLOWED
    assert said(await world.ask(PROXY, forwarded=LONDON_TOO, **through)) == ALLOWED
    assert said(await world.ask(PROXY, forwarded=SEATTLE, **through)) == ("step_up", "risk_medium")
    spoofed = f"{LONDON}, {SEATTLE}"  # the client's own words, then the address that the proxy saw
    assert said(await world.ask(PROXY, forwarded=spoofed, **through)) == ("step_up", "risk_medium")


@pytest.mark.parametrize("mapped", [f"::ffff:{LONDON}", "::ffff:5102:45a0", "0:0:0:0:0:FFFF:5102:45A0"])
async def test_a_mapped_address_is_the_address_it_stands_for(world: World, mapped: str) -> None:
    world.use(CITIES)
    assert said(await world.ask(LONDON, service="high")) == ALLOWED
    assert said(await world.ask(mapped, service="high")) == ALLOWED
    assert world.report.terms == ()
    through = {"trusted": f"{PROXY}/32", "service": "high"}
    assert said(await world.ask(f"::ffff:{PROXY}", forwarded=mapped, **through)) == ALLOWED
    assert said(await world.ask(f"::ffff:{SEATTLE}", service="high")) == ("step_up", "risk_medium")


# ---- a client that moves ----


async def test_a_client_that_moves_to_another_network_of_its_country_goes_on(world: World) -> None:
    world.use(CITIES)
    assert said(await world.ask(LONDON, service="high")) == ALLOWED
    assert said(await world.ask("2.125.160.216", service="high")) == ALLOWED
    assert world.report.level in {"none", "low"}
    assert "country_change" not in world.terms()


async def test_a_client_that_moves_to_another_country_is_asked_where_it_matters(world: World) -> None:
    world.use(CITIES)
    assert said(await world.ask(LONDON)) == ALLOWED
    assert said(await world.ask(SEATTLE)) == ALLOWED, "a medium risk at a service that is not sensitive"
    assert (world.report.level, world.terms() >= {"country_change", "new_network"}) == ("medium", True)
    assert said(await world.ask(SEATTLE, service="high")) == ("step_up", "risk_medium")
    assert said(await world.ask(SEATTLE, service="high", session=world.elevated())) == ALLOWED
    assert world.report.terms == ()


async def test_a_session_that_nothing_binds_and_that_moves_with_another_program_ends(world: World) -> None:
    world.use(CITIES)
    assert said(await world.ask(LONDON, session=PLAIN)) == ALLOWED
    decision = await world.ask(SEATTLE, session=PLAIN, ja4=OTHER_JA4)
    assert (decision.effect, decision.reasons[0]) == ("deny", "session_stolen")
    assert "revoke_session" in decision.reactions
    assert world.report.level == "high"
    assert said(await world.ask(LONDON, session=PLAIN, later=100)) == ALLOWED, "the owner, should the session live"


# ---- clocks ----


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_set_by_an_hour_asks_for_a_proof(world: World, hours: int) -> None:
    world.use(CITIES)
    assert said(await world.ask()) == ALLOWED
    world.clock.step = hours * 3_600.0
    decision = await world.ask()
    assert said(decision) == ASKED
    assert world.terms() == {"clock_set"}
    assert decision.reactions == (), "a clock that is set ends nothing"
    assert said(await world.ask(service="high", session=world.elevated())) == ALLOWED


async def test_a_proof_from_before_the_clock_was_set_back_answers_nothing(world: World) -> None:
    world.use(CITIES)
    await world.ask()
    proof = world.elevated()
    assert said(await world.ask(session=proof)) == ALLOWED
    world.clock.step = -3_600.0
    decision = await world.ask(session=proof)
    assert "clock_set" in world.terms()
    assert said(decision) == ASKED


async def test_an_hour_forward_ends_what_was_proven(world: World) -> None:
    world.use(CITIES)
    proof = world.elevated()
    assert said(await world.ask(session=proof)) == ALLOWED
    world.clock.step = 3_600.0
    assert said(await world.ask(session=proof)) == ASKED


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_worker_that_starts_after_the_clock_was_set(world: World, hours: int) -> None:
    world.use(CITIES)
    await world.ask()
    world.clock.step = hours * 3_600.0
    # Forward it cannot know; back it sees that what is remembered lies ahead.
    assert said(await world.ask(by=world.worker())) == (ASKED if hours < 0 else ALLOWED)


async def test_many_at_once_while_the_file_is_replaced_are_all_answered(world: World) -> None:
    world.use(CITIES)
    await world.ask()
    world.path.write_bytes(BAD["garbage"])
    world.clock.at += 3
    seen = await asyncio.gather(*(world.ask(later=0) for _ in range(20)))
    assert {said(decision) for decision in seen} == {ALLOWED}
    assert json.dumps(world.report.document())
