"""Host, as the edge sees it: what all connections of one worker share. The server meets it with its `EdgeHost`."""

from __future__ import annotations

from typing import Protocol

from gateway.config import Limits
from gateway.core.routes import Route
from gateway.edge.mitm.exchange import Exchange
from gateway.edge.mitm.generation import Generation
from gateway.edge.mitm.memory_ledger import MemoryLedger
from gateway.edge.mitm.turn_budget import TurnScheduler
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.edge.mitm.upstream_slots import Slots


class Host[Connection](Protocol):
    """The worker behind the connections."""

    memory: MemoryLedger
    scheduler: TurnScheduler
    draining: bool
    client_slots: Slots
    all_slots: Slots

    @property
    def generation(self) -> Generation:
        """The generation that serves."""

    @property
    def limits(self) -> Limits:
        """The current limits."""

    def client_key(self, ip: str, port: int) -> str:
        """Whom a connection is counted for."""

    def is_balancer(self, ip: str) -> bool:
        """Whether a peer must begin with the PROXY protocol."""

    def arrived(self, connection: Connection) -> bool:
        """Count a connection in; False over a limit."""

    def left(self, connection: Connection) -> None:
        """Count a connection out."""

    def handshake(self, *, ok: bool) -> None:
        """A TLS handshake ended."""

    def crashed(self, error: BaseException) -> None:
        """A bug ended a connection."""

    def cut_for_memory(self, connection: Connection) -> None:
        """A connection holds more than it may and is cut."""

    def finished(self, exchange: Exchange) -> None:
        """An exchange is over."""

    def upstream_failed(self, upstream: UpstreamPool, address: tuple[str, int], error: str) -> None:
        """An upstream could not be reached."""

    def upstream_broke(self, route: Route) -> None:
        """An upstream broke off its answer."""
