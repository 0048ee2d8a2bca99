"""The seam of risk signals: what one may see of a moment, what it says, and what it wants to remember. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import Any, ClassVar, Literal, Protocol

from gateway.core.decision import RiskTerm
from gateway.core.ports.pipeline import Network

# Whose memory a signal is given: that of the session, of the person, or of the client's network.
Scope = Literal["session", "subject", "network"]
_JA4_PARTS = 3
_HOME = "company"
_NOWHERE = Network()
_V4_PREFIX, _V6_PREFIX = 16, 32


@dataclass(frozen=True)
class Observation:
    """One moment of somebody who has signed in, or an attempt that failed. "" and None are unknown.

    Times are seconds since the epoch. `subject` and `session` are opaque names; `kind` is the identity's ("session" for
    a cookie, "jwt", "opaque"). `bound`: a key or a device proves the holder of the session. `first`: the first sight of
    this session. `agent` is the User-Agent, `hints` the client hints for platform and brand. `failed` is the reason
    code of an attempt that failed, "" for a success; `account` is then what was attempted, where that is known.
    """

    now: float
    subject: str
    session: str
    kind: str = "session"
    bound: bool = False
    first: bool = False
    device_id: str = ""
    ip: str = ""
    network: Network = _NOWHERE
    ja4: str = ""
    agent: str = ""
    hints: str = ""
    protocol: str = "h2"
    failed: str = ""
    account: str = ""

    @cached_property
    def place(self) -> str:
        """The network by one name: "company", "as64500", else its country ("DE"), else the address's /16 (IPv6: /32).

        The two families of a dual-stack client have one name as long as AS or country is known.
        """
        if self.network.company or self.network.vpn:
            return _HOME
        if self.network.asn is not None:
            return f"as{self.network.asn}"
        if self.network.country is not None:
            return self.network.country
        try:
            bits = _V4_PREFIX if ip_address(self.ip).version == 4 else _V6_PREFIX  # noqa: PLR2004
            return str(ip_network(f"{self.ip}/{bits}", strict=False))
        except ValueError:
            return ""

    @property
    def at_home(self) -> bool:
        """Whether the client is in one of the company's networks or in its VPN: there is no country to compare."""
        return self.place == _HOME

    @cached_property
    def ja4_b(self) -> str:
        """The part of JA4 that names the cipher suites: one browser build has one, whatever it asks for."""
        parts = self.ja4.split("_")
        return parts[1] if len(parts) == _JA4_PARTS else ""


@dataclass(frozen=True, slots=True)
class SignalResult:
    """What a signal makes of an observation.

    `terms` raise the risk; none of them is negative. `memory` is what to remember in any case, `learned` what to
    remember instead when the whole observation turns out to be unsuspicious, or was proven by a second factor. Either
    is the very mapping that was handed in where nothing changed, for then nothing is written. Both are small and JSON.
    """

    terms: tuple[RiskTerm, ...]
    memory: Mapping[str, Any]
    learned: Mapping[str, Any]


class Signal(Protocol):
    """One reason to be careful. It keeps nothing and asks nobody: memory goes in and comes out. It can only tighten.

    `name` is its terms' name, or what they begin with. `scope` says whose memory it is given, `bound` what its terms
    sum to at most (natural-log odds). `failures`: it sees failed attempts as well; its terms then count for nothing.
    `schema` is the JSON Schema of the constructor's arguments. Raising is `risk_unavailable`.
    """

    name: str
    scope: Scope
    bound: float
    failures: bool
    schema: ClassVar[Mapping[str, Any]]

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """What it makes of `seen`; `memory` is empty at first, and whatever it was last time after that."""
