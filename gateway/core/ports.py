"""The seams of the house: what one part may ask of another, with what None and raising mean.

Raising anything from a port is always safe: the pipeline answers with a denial. `StoreDown` is the one exception a
caller branches on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, ClassVar, Protocol

from gateway.core.decision import RiskReport
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session


class StoreDown(Exception):
    """The state store cannot be read or written. Answered with `store_down`, never with access."""


class StoreLost(StoreDown):
    """The store answers, and is not what it was: emptied, another one, or without writes that it had acknowledged."""


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


@dataclass(frozen=True, slots=True)
class OwnEndpoints:
    """What the gateway's own paths hand out.

    `jwks`: the JSON Web Key Set of the assertion keys; `crl`: the CRL file (PEM or DER) and `ca`: the device CA (PEM),
    None where there is none; `protected_resource(host, path)`: the metadata of RFC 9728, None for no such resource.
    `enrolment` None: nobody can enrol here.
    """

    jwks: Callable[[], Mapping[str, Any]]
    crl: Callable[[], bytes | None]
    ca: Callable[[], bytes | None]
    protected_resource: Callable[[str, str], Mapping[str, Any] | None]
    enrolment: Enrolment | None = None


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

    def look(self, ip: str) -> Network:
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
    ) -> RiskReport:
        """The report. Raising means `risk_unavailable`."""

    def heard(self) -> None:
        """Something has changed that a report may hang on: none may be given a second time. Never raises."""

    def failed(self, reason: str, ip: str, network: Network, *, account: str = "", session_id: str = "") -> None:
        """Somebody failed to show a good credential or factor. Never raises, and writes nothing at once.

        `account` is `subject_key(...)` where the person is known.
        """


class Recorder(Protocol):
    """Writes one line for each decision on a staff route."""

    def record(self, event: Mapping[str, Any]) -> None:
        """Write the event durably enough to survive a kill. Raises OSError when it cannot."""


# ---- asking other servers ----


class Unreachable(Exception):
    """A server gave no usable HTTP answer: no connection, too slow, too large, not HTTP. The text holds no secret."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole HTTP answer. Header names are lower case; of several equal ones the values are joined with a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient(Protocol):
    """Asks one kind of server. Bounded in time and size, follows no redirect, keeps no cookie."""

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """The answer, whatever its status. Raises `Unreachable`."""

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """The answer to a form (application/x-www-form-urlencoded), whatever its status. Raises `Unreachable`."""

    async def send_json(
        self, method: str, url: str, value: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """The answer to a JSON body, None for no body, whatever its status. Raises `Unreachable`."""

    async def post_bytes(self, url: str, content: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """The answer to a body as it is, whatever its status. Raises `Unreachable`."""

    async def close(self) -> None:
        """Close the connections."""


# ---- state: every method is durable when it returns, and raises StoreDown when the store cannot be used ----


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device as enrolled. `status` is "pending" (token given, not enrolled yet), "active" or "revoked"."""

    id: str
    name: str
    owner: str
    department: str
    status: str
    created_at: float
    enrolled_at: float | None = None
    revoked_at: float | None = None
    revoked_why: str = ""
    posture: Mapping[str, Any] = field(default_factory=dict)

    def revoke(self, now: float, why: str) -> DeviceRecord:
        """This record, revoked."""
        return replace(self, status="revoked", revoked_at=now, revoked_why=why)


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate our PKI signed. `serial` is lower-case hex; times are seconds since the epoch."""

    serial: str
    device_id: str
    not_before: float
    not_after: float


class DeviceStore(Protocol):
    """Device records, one-time enrolment tokens, issued certificates."""

    async def device(self, device_id: str) -> DeviceRecord | None:
        """The record, None for an unknown id."""

    async def devices(self) -> Sequence[DeviceRecord]:
        """Every record, newest first."""

    async def put_device(self, record: DeviceRecord) -> None:
        """Insert or replace a record; a revoked one is never replaced by one that is not revoked."""

    async def add_enrolment(self, token_sha256: str, device_id: str, expires_at: float) -> None:
        """Remember a one-time token by the hex SHA-256 of its text."""

    async def take_enrolment(self, token_sha256: str, now: float) -> str | None:
        """Consume a token atomically: its device id, or None when it is unknown, used or expired."""

    async def add_certificate(self, certificate: IssuedCertificate) -> None:
        """Remember an issued certificate."""

    async def revoked_certificates(self, now: float) -> Sequence[tuple[IssuedCertificate, float]]:
        """Unexpired certificates of revoked devices, each with the time of the revocation."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as the store keeps it. `identity` is the subject's display form for lists."""

    id: str
    issuer: str
    subject: str
    identity: str
    device_id: str
    created_at: float
    last_seen_at: float
    expires_at: float
    revoked_at: float | None = None
    revoked_why: str = ""


class SessionStore(Protocol):
    """Sessions and their revocation."""

    async def session(self, session_id: str) -> SessionRecord | None:
        """The record, None for an unknown id."""

    async def sessions(self, subject: str | None = None) -> Sequence[SessionRecord]:
        """Unexpired sessions, newest first, of one subject or of all."""

    async def put_session(self, record: SessionRecord) -> None:
        """Insert, or refresh `last_seen_at` and `expires_at`; never clears a revocation."""

    async def revoke_session(self, session_id: str, now: float, why: str) -> bool:
        """Revoke; False for an unknown id. A revocation outlives the session's expiry by at least 400 days."""


class ReplayStore(Protocol):
    """Things that may be used once."""

    async def first_use(self, key: str, now: float, expires_at: float) -> bool:
        """Whether `key` is used for the first time before `expires_at`, atomically."""


class SecretStore(Protocol):
    """Small secrets that every worker shares (signing keys), sealed at rest."""

    async def secrets(self, purpose: str) -> Sequence[tuple[str, float, bytes]]:
        """(name, created_at, value) of every secret of a purpose, newest first."""

    async def put_secret(self, purpose: str, name: str, created_at: float, value: bytes) -> bool:
        """Add a secret; False when one of that purpose and name is there already."""

    async def drop_secret(self, purpose: str, name: str) -> None:
        """Forget a secret."""


@dataclass(frozen=True, slots=True)
class Document:
    """A small value under a key; `version` grows with every write. Times are seconds since the epoch."""

    key: str
    value: bytes
    version: int
    expires_at: float


class Documents(Protocol):
    """Small sealed values with an end, in collections: login transactions, sessions, factors, cursors."""

    async def get(self, collection: str, key: str, now: float) -> Document | None:
        """The document, None when it is not there or has ended."""

    async def put(
        self, collection: str, key: str, value: bytes, expires_at: float, *, version: int | None = None, group: str = ""
    ) -> bool:
        """Write. `version`: None writes in any case, 0 only when nothing is there, n only over version n.

        Answers whether it was written. `group` is what `list` finds it by (a subject, a parent session).
        """

    async def take(self, collection: str, key: str, now: float) -> Document | None:
        """Read and delete in one step: of several callers one gets it."""

    async def delete(self, collection: str, key: str) -> bool:
        """Delete; whether it was there."""

    async def list(self, collection: str, group: str, now: float) -> Sequence[Document]:
        """Every document of a group that has not ended, oldest first."""


# ---- second factors ----


@dataclass(frozen=True, slots=True)
class FactorOwner:
    """The person a factor belongs to. `account` is the name that apps and keys show (an address, a login name)."""

    issuer: str
    subject: str
    account: str = ""

    @property
    def handle(self) -> bytes:
        """32 bytes that stand for this issuer and subject alone, and say neither."""
        text = f"gateway/v1/factor-owner|{len(self.issuer)}|{self.issuer}|{self.subject}"
        return sha256(text.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class FactorStep:
    """The first half of an enrolment or a challenge: what to keep until the answer, and what the person is shown."""

    pending: Mapping[str, Any] = field(repr=False)
    show: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class FactorProven:
    """A good answer: which of the states it proved, that state afterwards, and the `amr` values (RFC 8176) it earns."""

    index: int
    state: Mapping[str, Any] = field(repr=False)
    amr: tuple[str, ...]


class Factor(Protocol):
    """One kind of second factor. It keeps nothing: state goes in and comes out, and the caller brings the time.

    A state and a `pending` are JSON objects that the caller keeps sealed. `states` are those of this kind and owner.
    `answer` is what the browser sent, unverified: whatever is in it, the answer is a value. Methods may take a while
    (hashing), so they are called outside the event loop, from several threads.

    `amr`: every value that a proof may earn. `many`: a person may have several; of the others a new one replaces the
    old. `enrol_amr`: what an enrolment proves, as a proof would; empty for a kind that is of use beside another one
    only. `enrol_tries`: how many answers an enrolment takes before it has to begin anew. `schema`: the JSON Schema of
    the constructor's arguments.
    """

    kind: str
    amr: frozenset[str]
    many: bool
    enrol_amr: frozenset[str]
    enrol_tries: int
    schema: ClassVar[Mapping[str, Any]]

    def enrol_begin(self, owner: FactorOwner, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """Begin an enrolment."""

    def enrol_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> Mapping[str, Any] | Refusal:
        """The new factor's state, or `factor_invalid`."""

    def challenge_begin(self, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """Ask for a proof of one of `states`, of which there is at least one."""

    def challenge_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> FactorProven | Refusal:
        """What was proven, or `factor_invalid` or `factor_replayed`."""

    def describe(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the owner's list of factors says of one; nothing secret."""


class SessionEnder(Protocol):
    """Ends what a person is signed in with, at once and on every worker. Raises StoreDown."""

    async def end_login_sessions(
        self, issuer: str, *, sid: str | None = None, subject: str | None = None, why: str, before: float | None = None
    ) -> int:
        """End the login sessions of an issuer's `sid`, or all of a `subject`, and the matching bearer sessions.

        `before`: a time of the issuer's; a `subject` keeps the sign-ins that were completed after it. How many login
        sessions and bearer sessions were ended. With neither, none.
        """


@dataclass(frozen=True, slots=True)
class Change:
    """Something that open connections may hang on has changed. `seq` grows by one with every change.

    `kind` is "session" (`key`: the session's id), "device" (its id), "subject" (issuer and subject, see `subject_key`)
    or "all".
    """

    seq: int
    kind: str
    key: str


def subject_key(issuer: str, subject: str) -> str:
    """One text for an issuer and a subject, that no other two give."""
    return f"{len(issuer)}|{issuer}|{subject}"


class Changes(Protocol):
    """News for every worker and machine: what changed, in order, with nothing lost unnoticed.

    The store announces what it knows itself, in the same transaction: `revoke_session` ("session", whether the id is
    known or not) and `put_device` ("device"). Raises StoreDown.
    """

    async def announce(self, kind: str, key: str) -> None:
        """Tell every follower that something changed."""

    async def latest(self) -> int:
        """The number of the last change, 0 before the first."""

    async def changes(self, after: int) -> Sequence[Change] | None:
        """Every change after number `after`, oldest first.

        None when some of them are forgotten, or when the store has begun anew (its `latest` is less than `after`): the
        caller then has to take everything as changed. At least the last 10,000 changes and the last hour are kept.
        """

    async def wait(self, after: int, timeout_s: float) -> None:
        """Return when there may be changes after number `after`, within tens of milliseconds, or after `timeout_s`."""


class Store(DeviceStore, SessionStore, ReplayStore, SecretStore, Changes, Protocol):
    """All of the gateway's state in one place."""

    async def ping(self) -> None:
        """Raise StoreDown unless the store can be read and written."""

    async def close(self) -> None:
        """Close the store."""
