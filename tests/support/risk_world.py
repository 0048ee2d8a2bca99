"""An assessor over a real store, and the people and places that it sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.core.decision import RiskReport
from gateway.core.ports.pipeline import Network
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session, subject_key
from gateway.risk.assessor import Assessor
from gateway.risk.memory import RiskMemory
from gateway.risk.scoring import digest
from plugins.signals import builtin

NOW = 1_800_000_000.0
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
JA4, SCRIPT = "t13d1516h2_8daaf6152771_b186095e22b6", "t13d3112h2_e8f1e7e78f70_6bebaf5329ac"
BERLIN = Network("DE", 64500, "Example Net", 52.52, 13.40, 20.0)
SYDNEY = Network("AU", 64510, "Far Net", -33.87, 151.21, 50.0)
ANN = Identity("https://id", "ann", "session", "h", NOW + 9e4, amr=("pwd", "otp"), auth_time=NOW - 10)
# Wildcards: the route's host is not the request's.
ROUTES = {"corp": Route("wiki", "*.corp"), "mple": Route("shop", "*.shop.example", plane="user")}
SESSION = Session("l_ann", NOW - 5)


class Clock:
    """Wall clock and counter; `step` sets the one and not the other."""

    def __init__(self) -> None:
        self.at, self.step = 0.0, 0.0

    def wall(self) -> float:
        return NOW + self.at + self.step

    def counter(self) -> float:
        return 50.0 + self.at


class World:
    """An assessor and the people who use it."""

    def __init__(self, documents: SqliteDocuments, clock: Clock) -> None:
        self.documents, self.clock = documents, clock
        self.assessor = self.another()

    def another(self, signals: Any = None, **changes: Any) -> Assessor:
        """One more worker on the same store."""
        memory = RiskMemory(self.documents, self.clock.wall)
        clocks = {"clock": self.clock.wall, "monotonic": self.clock.counter}
        return Assessor(memory, builtin() if signals is None else signals, **(clocks | changes))

    async def ask(
        self,
        *,
        session: Session | None = SESSION,
        identity: Identity | None = ANN,
        network: Network = BERLIN,
        ip: str = "192.0.2.7",
        ja4: str = JA4,
        agent: str = CHROME,
        later: float = 6.0,
        host: str = "wiki.corp",
        by: Assessor | None = None,
        device: Device | None = None,
    ) -> RiskReport:
        self.clock.at += later
        facts = RequestFacts(
            method="GET",
            host=host,
            path="/",
            segments=(),
            query="",
            query_fields=(),
            headers=(("user-agent", agent), ("sec-ch-ua-platform", '"Linux"')),
            protocol="h2",
            content_length=0,
            peer=Peer(ip, 4711, ja4=ja4),
            client_ip=ip,
        )
        return await (by or self.assessor).assess(session, identity, device, facts, network, ROUTES[host[-4:]])

    async def thief(self, **changes: Any) -> RiskReport:
        request: dict[str, Any] = {"ja4": SCRIPT, "network": SYDNEY, "ip": "198.51.100.9"}
        return await self.ask(**request | changes)


def names(report: RiskReport) -> set[str]:
    return {term.name for term in report.terms}


async def stored_keys(world: World, collection: str) -> AsyncIterator[str]:
    """The keys of a collection under which there is anything of Ann."""
    key = digest(subject_key("https://id", "ann"))
    if await world.documents.get(collection, key, world.clock.wall()) is not None:
        yield key
