"""What the stages of the pipeline ask: devices, identities, sessions, networks, risk, policy, the record.

Raising anything from a port is safe: the pipeline answers with a denial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.core.decision import RiskReport
from gateway.core.reasons import Reason, Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session


class EngineFailure(Exception):
    """A policy engine could not answer; `reason` says which way (`policy_timeout`, `policy_error`, ...)."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class PolicyEngine(Protocol):
    """Evaluates `data.gateway.authz.decision`.

    `in_process`: an evaluation never waits, so no timer can bound it and the engine looks at the clock itself.
    """

    in_process: bool

    @property
    def reads(self) -> Sequence[tuple[str, ...]]:
        """The paths of the input that the policies can read; one empty path stands for all of it."""

    @property
    def version(self) -> str:
        """A short digest of the loaded bundle (policies and data)."""

    @property
    def reason_texts(self) -> Mapping[str, Reason]:
        """What to tell the person who meets one of the policies' own reason codes."""

    async def evaluate(self, document: Mapping[str, Any]) -> object:
        """The raw answer for one input document, None when undefined. Raises `EngineFailure`."""

    async def close(self) -> None:
        """Free what the engine holds."""


class IdentityReader(Protocol):
    """One way to recognise a person. Readers are asked in order; the first that claims the request decides."""

    async def read(self, facts: RequestFacts, route: Route) -> Identity | None | Refusal:
        """An identity; None when the request carries no credential of this kind; a Refusal stops."""

    async def again(self, identity: Identity, facts: RequestFacts, route: Route) -> Identity | None | Refusal:
        """The same person as they are now, for a connection that is still open; None when another reader knows them.

        Nothing that is good once is asked for again.
        """


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device certificate that was just signed; `chain_pem` are the certificates above it."""

    device_id: str
    certificate_pem: str
    chain_pem: str


class Enrolment(Protocol):
    """Signs device certificates; the key never leaves the device."""

    async def enrol(self, token: str, csr_pem: str) -> Enrolled | Refusal:
        """The first certificate, for a one-time token. A Refusal for a token or CSR that will not do."""

    async def renew(self, device: Device, csr_pem: str) -> Enrolled | Refusal:
        """The next certificate of a device that has just proved its present one, for a new key."""


class DeviceVerifier(Protocol):
    """Judges a peer's certificate, which the handshake verified, against the device records and the CRL."""

    async def verify(self, peer: Peer) -> Device | None | Refusal:
        """The device; None without a certificate; a Refusal for one that is not in good standing."""


class SessionBinder(Protocol):
    """Ties an identity to the device and key it is used with."""

    async def bind(
        self,
        identity: Identity,
        device: Device | None,
        facts: RequestFacts,
        route: Route,
        *,
        before: Session | None = None,
        in_use: bool = True,
    ) -> Session | Refusal:
        """The session, or `session_revoked` or `binding_mismatch`.

        `before` is the session that an open connection began with: its proofs stay, only the session is asked for; it
        has been used since only if `in_use`.
        """


@dataclass(frozen=True, slots=True)
class Network:
    """What the data say of a client address. None and "" are unknown; `accuracy_km` is the radius around the position.

    `country` is ISO 3166-1 alpha-2. `vpn`: the address belongs to the company's own VPN, `company`: to one of its
    networks. `flaw` says why the data are missing: "" for nothing, "absent" or "broken".
    """

    country: str | None = None
    asn: int | None = None
    organisation: str = ""
    latitude: float | None = None
    longitude: float | None = None
    accuracy_km: float | None = None
    vpn: bool = False
    company: bool = False
    flaw: str = ""


class Networks(Protocol):
    """Knows where an address is."""

    def lookup(self, ip: str) -> Network:
        """What is known of an address, IPv4-mapped IPv6 read as IPv4. Never raises, and costs microseconds."""


class RiskAssessor(Protocol):
    """Scores the risk of the moment."""

    async def assess(
        self,
        session: Session | None,
        identity: Identity | None,
        device: Device | None,
        facts: RequestFacts,
        network: Network,
        route: Route,
    ) -> RiskReport:
        """The report; of a zero-log route nothing is remembered. Raising means `risk_unavailable`."""

    def invalidate(self) -> None:
        """Something has changed that a report may hang on: none may be given a second time. Never raises."""

    def record_failure(
        self, reason: str, ip: str, network: Network, *, account: str = "", session_id: str = ""
    ) -> None:
        """Somebody failed to show a good credential or factor. Never raises, and writes nothing at once.

        `account` is `subject_key(...)` where the person is known.
        """


class Recorder(Protocol):
    """Writes one line for each decision on a staff route."""

    def record(self, event: Mapping[str, Any]) -> None:
        """Write the event durably enough to survive a kill. Raises OSError when it cannot."""
