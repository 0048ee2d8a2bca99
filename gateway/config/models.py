"""What may stand in the configuration file: frozen models, with a description for every key.

Secrets never stand in the file: a `Secret` names a file or an environment variable. Relative paths are relative to the
file. `gateway config schema` prints the JSON Schema for editors, `gateway config docs` docs/configuration.md.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from gateway.core.header_names import is_asserted, is_reserved

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Seconds = Annotated[float, Field(gt=0, le=86_400 * 366)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Host = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
HostPort = Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$")]
Method = Annotated[str, Field(pattern=r"^[A-Z]{1,20}$")]


def _asserted(name: str) -> str:
    if not is_asserted(name) or is_reserved(name):
        raise ValueError("keep_headers names headers that would be stripped, but none that the gateway itself sets")
    return name


_HTTPS = 443
INTROSPECT_AUTO_S = 10.0
ADDRESS = r"^https?://[^\s/?#]+$"
Address = Annotated[str, Field(pattern=ADDRESS)]
KeptHeader = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,127}$"), AfterValidator(_asserted)]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


def _word_or_number(value: Any) -> str:
    return "(word)" if isinstance(value, str) else "(seconds)"


def _short_or_long(value: Any) -> str:
    return "(short)" if isinstance(value, str | bool) else "(long)"


class Model(BaseModel):
    """Strict and frozen: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Secret(Model):
    """Where a secret is found; exactly one of `file` and `env`."""

    file: Path | None = Field(None, description="A file that holds the secret; it must not be readable by others.")
    env: str | None = Field(None, description="The name of an environment variable that holds the secret.")


class Listen(Model):
    """Where people and machines connect."""

    address: str = Field("0.0.0.0", description="The address to listen on.")  # noqa: S104
    port: Port = Field(8443, description="The TCP port to listen on.")
    public_port: Port | None = Field(None, description="The port browsers use, where that is not `port`.")
    workers: int = Field(1, ge=1, le=256, description="Processes that share the port (SO_REUSEPORT).")
    drain_s: Seconds = Field(30, description="How long open requests may go on after SIGTERM.")


class ServerCertificate(Model):
    """A certificate the gateway shows; it is picked by the server name (SNI) its SANs cover."""

    certificate: Path = Field(description="PEM: the leaf, then its chain.")
    key: Path = Field(description="PEM: the private key; it must not be readable by others.")


class Devices(Model):
    """The internal PKI that knows the company's devices."""

    trust_domain: Host = Field("gateway.internal", description="The SPIFFE trust domain of device certificates.")
    ca: Path | None = Field(None, description="PEM: the device root and issuing CA.")
    issuing_key: Path | None = Field(None, description="PEM: the issuing CA's key; without it nobody can enrol here.")
    crl: Path | None = Field(None, description="The CRL file; by default crl.pem beside the CA.")
    crl_max_age_s: Seconds = Field(86_400, description="A CRL older than this is stale, and every device is refused.")
    certificate_life_s: Seconds = Field(86_400, description="How long a device certificate lives.")
    enrolment_life_s: Seconds = Field(600, description="How long a one-time enrolment token lives.")

    @property
    def crl_file(self) -> Path | None:
        """Where the CRL is; None without a device PKI."""
        return self.crl or (self.ca.with_name("crl.pem") if self.ca else None)


class Introspection(Model):
    """How to ask the issuer whether a token is active (RFC 7662)."""

    client_id: str = Field(description="The API application's client id.")
    method: Literal["basic", "private_key_jwt"] = Field("private_key_jwt", description="How to authenticate.")
    secret: Secret | None = Field(None, description="The client secret, for `basic`.")
    key: Secret | None = Field(None, description="The key file of the API application (JSON), for `private_key_jwt`.")
    cache_s: Seconds = Field(10, description="How long an answer may be used again.")


class Login(Model):
    """How people sign in at an issuer: OpenID Connect, authorization code and PKCE."""

    client_id: str = Field(min_length=1, description="The client id of the gateway's own web application.")
    secret: Secret | None = Field(None, description="Its secret; without secret and key it is a public client.")
    key: Secret | None = Field(None, description="Its key file (JSON), for private_key_jwt.")
    scopes: tuple[Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")], ...] | None = Field(
        None, description="What is asked for; by default what the issuer's profile needs."
    )
    slug: Name | None = Field(None, description="The issuer's part of the redirect URI; by default made of its host.")
    max_age_s: Seconds | None = Field(None, description="Ask for a sign-in no older than this, and refuse older ones.")
    empty_amr: Literal["refuse", "accept"] = Field(
        "refuse", description="A sign-in without `amr`; accepted, it proves no factor at all."
    )
    first_factor: bool = Field(True, description="Whoever has no second factor here yet may add the first one alone.")


class ZitadelApi(Model):
    """How Zitadel tells of ended logins beyond OpenID Connect: webhooks, and its events read in a loop."""

    url: str | None = Field(None, pattern=ADDRESS, description="An internal address of the instance.")
    token: Secret | None = Field(None, description="A personal access token of the gateway's machine user.")
    key: Secret | None = Field(None, description="A key file of that user (JSON), instead of the token.")
    webhook_keys: tuple[Secret, ...] = Field(
        (), description="Signing keys of the webhook target; two while one changes."
    )
    reconcile_s: Seconds = Field(2, description="Time between two looks at the events; needs `token` or `key`.")


class Issuer(Model):
    """An OpenID provider whose access tokens are accepted."""

    issuer: str = Field(pattern=r"^https?://[^\s?#]+$", description="The issuer, exactly as in its tokens.")
    profile: Literal["strict", "zitadel"] = Field("strict", description="RFC 9068 to the letter, or Zitadel's tokens.")
    audiences: tuple[str, ...] = Field(min_length=1, description="One of these must be in `aud` (a project id).")
    client_ids: tuple[str, ...] = Field((), description="Clients whose tokens are accepted; empty accepts every one.")
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"], ...] = Field(
        ("RS256", "ES256", "EdDSA"), min_length=1, description="Signature algorithms this issuer may use."
    )
    introspection: Introspection | None = Field(None, description="Needed for opaque tokens and for staff JWTs.")
    leeway_s: float = Field(5, ge=0, le=60, description="Clock difference allowed in exp, iat and nbf.")
    ca: Path | None = Field(None, description="PEM: the CA of the issuer's own server certificate.")
    department_claim: str = Field(
        "urn:zitadel:iam:user:metadata/department", description="Claim (or claim/member) that names the department."
    )
    opaque: bool = Field(False, description="Tokens that are no JWT are introspected here.")
    zitadel: ZitadelApi | None = Field(None, description="Zitadel's own APIs, for a quick end of sessions.")
    login: Login | None = Field(None, description="People sign in here with a browser.")

    @property
    def slug(self) -> str:
        """The issuer's part of the redirect URI."""
        if self.login is not None and self.login.slug is not None:
            return self.login.slug
        return re.sub(r"[^a-z0-9]+", "-", self.issuer.partition("://")[2].lower()).strip("-")[:63].strip("-")


class Policy(Model):
    """Where decisions come from."""

    engine: Literal["embedded", "opa"] = Field("embedded", description="OPA in process, or an OPA server.")
    path: Path = Field(Path("policies"), description="The folder with the Rego files and data/.")
    deadline_ms: int = Field(500, ge=1, le=10_000, description="No answer by then is a denial.")
    url: str | None = Field(None, description="The OPA server, for engine: opa.")
    push: bool = Field(True, description="Push this folder to the OPA server; false when it serves its own bundle.")
    token: Secret | None = Field(None, description="Bearer token for the OPA server.")
    ca: Path | None = Field(None, description="PEM: the CA of the OPA server's certificate.")


class Health(Model):
    """Active checks of an upstream's addresses."""

    path: str = Field("/", pattern=r"^/", description="The path that is asked for; below 500 is healthy.")
    interval_s: Seconds = Field(5, description="Time between two checks.")
    timeout_s: Seconds = Field(2, description="No answer by then is a failure.")


class Upstream(Model):
    """A service's own addresses and how to talk to them."""

    urls: tuple[Address, ...] = Field(
        min_length=1, description="One or several addresses; the healthy ones take turns."
    )
    protocol: Literal["http1", "h2"] = Field("http1", description="h2 is needed for gRPC.")
    ca: Path | None = Field(None, description="PEM: the CA of the upstream's certificate; by default the system's.")
    certificate: Path | None = Field(None, description="PEM: client certificate shown to the upstream.")
    key: Path | None = Field(None, description="PEM: its key.")
    server_name: str | None = Field(None, description="The name the upstream's certificate must have.")
    connect_timeout_s: Seconds = Field(5, description="No connection by then is upstream_unreachable.")
    response_timeout_s: Seconds = Field(60, description="No response head by then is upstream_timeout.")
    idle_s: Seconds = Field(4, description="How long an idle connection is kept for the next request.")
    connections: Literal["shared", "person"] = Field(
        "shared",
        description="person: no connection ever serves two people. Needed where a service remembers who a connection "
        "belongs to, by anything but NTLM, Negotiate or an Authorization scheme that is not known to be stateless.",
    )
    health: Health | None = Field(None, description="Active checks; needed with several urls.")


class Mfa(Model):
    """Which second factor is needed, and how fresh."""

    methods: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,63}$")], ...] = Field(
        (), max_length=16, description="One of these `amr` values; by default those of the policies' settings."
    )
    max_age_s: int | None = Field(None, ge=1, le=86_400, description="A proof that is older does not count.")


class Allow(Model):
    """What the starter policies ask for; handed to Rego as data.gateway.services[name].allow."""

    public: bool = Field(False, description="No sign-in needed.")
    roles: tuple[str, ...] = Field((), description="One of these roles is needed; org/role names the organisation.")
    departments: tuple[str, ...] = Field((), description="One of these departments; by default the service's own.")
    countries: tuple[Country, ...] = Field((), description="Only these countries (ISO 3166-1 alpha-2).")
    mfa: (
        Annotated[Annotated[bool, Tag("(short)")] | Annotated[Mfa, Tag("(long)")], Discriminator(_short_or_long)] | None
    ) = Field(None, description="A second factor is needed; by default on the staff plane.")
    read_only_roles: tuple[str, ...] = Field((), description="These roles may look (GET, HEAD) but not change.")


class PathRule(Model):
    """What is different below one path of a service."""

    methods: tuple[Method, ...] | None = Field(None, description="Only these methods; by default every one.")
    sensitivity: str | None = Field(None, description="Handed to policy as service.sensitivity.")
    device: Literal["required", "optional"] | None = Field(None, description="Whether an enrolled device is needed.")
    allow: Allow | None = Field(None, description="Replaces the service's own allow.")
    body_limit_mib: int | None = Field(None, ge=0, description="The largest request body.")


class Service(Model):
    """A protected service."""

    host: Host = Field(description="The public host name; *.name covers one level.")
    upstream: Annotated[
        Annotated[Address, Tag("(short)")] | Annotated[Upstream, Tag("(long)")], Discriminator(_short_or_long)
    ] = Field(description="Its own address, or the long form.")
    plane: Literal["staff", "user"] = Field("staff", description="user is zero-log: no trace of any request.")
    department: str = Field("", description="The department it belongs to.")
    sensitivity: str = Field("normal", description="Handed to policy as service.sensitivity.")
    device: Literal["required", "optional"] = Field("required", description="Whether an enrolled device is needed.")
    issuers: tuple[str, ...] = Field((), description="Issuers accepted here; empty accepts every configured one.")
    introspect: Annotated[
        Annotated[Literal["auto", "never"], Tag("(word)")] | Annotated[Seconds, Tag("(seconds)")],
        Discriminator(_word_or_number),
    ] = Field("auto", description="Ask the issuer about JWTs, cached this long; auto is 10 s on the staff plane.")
    allow: Allow = Field(Allow(), description="What the starter policies ask for.")
    paths: dict[Annotated[str, Field(pattern=r"^/[^\s?#%;]*$")], PathRule] = Field(
        default_factory=dict, description="What is different below a path."
    )
    keep_bearer: bool = Field(False, description="Hand the caller's own token to the service.")
    identity_headers: bool = Field(False, description="Add plain X-Gateway-* identity headers as well.")
    preserve_host: bool = Field(True, description="Send the public host name, not the upstream's.")
    path_parameters: bool = Field(
        False, description="The service reads `;` in a path as any other character; refused otherwise."
    )
    strip_headers: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,127}\*?$")], ...] = Field(
        (), description="Headers of clients that this service must not get, in any spelling; `x-own-*` is a family."
    )
    keep_headers: tuple[KeptHeader, ...] = Field(
        (), description="Headers by which a client speaks as a proxy does, and which this service gets nevertheless."
    )
    origins: tuple[Annotated[str, Field(pattern=r"^https://[a-z0-9.-]+(:[0-9]{1,5})?$")], ...] = Field(
        (), description="Origins whose pages may open WebSockets here by cookie, beside the service's own."
    )
    body_limit_mib: int = Field(1024, ge=0, description="The largest request body.")

    @property
    def backend(self) -> Upstream:
        """The long form of `upstream`."""
        return Upstream(urls=(self.upstream,)) if isinstance(self.upstream, str) else self.upstream

    @property
    def introspect_cache_s(self) -> float | None:
        """How long an answer about a JWT may be used again; None when its issuer is not asked."""
        if self.introspect == "never" or (self.introspect == "auto" and self.plane == "user"):
            return None
        return INTROSPECT_AUTO_S if self.introspect == "auto" else float(self.introspect)


class Networks(Model):
    """What is known of client addresses, for `client.country`, `client.asn` and `client.vpn` and for risk."""

    databases: tuple[Path, ...] | None = Field(
        None,
        description="MaxMind DB files (country, ASN, city); by default the country file installed with the gateway.",
    )
    company: tuple[IpNetwork, ...] = Field((), description="The company's own networks, where a country says nothing.")
    vpn: tuple[IpNetwork, ...] = Field((), description="Addresses that the company's VPN hands out: `client.vpn`.")


class Risk(Model):
    """How unusual a request may be. Without this section no signal is looked at, and every risk is none."""

    low: float = Field(1.0, gt=0, le=100, description="The score at which the level low begins.")
    medium: float = Field(2.0, gt=0, le=100, description="The score at which the level medium begins.")
    high: float = Field(4.0, gt=0, le=100, description="The score at which the level high begins.")
    reuse_s: float = Field(5, ge=0, le=60, description="An unchanged session is not scored again for this long.")
    remember_days: float = Field(180, gt=0, le=730, description="How long a person's history is kept.")
    signals: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], dict[str, float]] = Field(
        default_factory=dict, description="Settings of signals, by name (docs/signals.md); a weight of 0 silences one."
    )


class Record(Model):
    """Where decisions on the staff plane are written."""

    file: Path = Field(Path("state/decisions.jsonl"), description="One JSON line for each decision.")


class StateTls(Model):
    """TLS to the Redis and its Sentinels; their certificates must carry the addresses they are reached at."""

    ca: Path | None = Field(None, description="PEM: the only CA believed; by default the system's.")
    certificate: Path | None = Field(None, description="PEM: client certificate.")
    key: Path | None = Field(None, description="PEM: its key; it must not be readable by others.")


class StateSentinel(Model):
    """The Sentinels that know which Redis is the master."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="What they call the master.")
    addresses: tuple[HostPort, ...] = Field(min_length=1, description="Where they are; most of them decide.")
    username: str | None = Field(None, description="ACL user at the Sentinels.")
    password: Secret | None = Field(None, description="Its password.")


class StateStore(Model):
    """Where sessions, devices and revocations are kept: a file of this machine, or a Redis that several share.

    Redis needs `appendonly yes` and `maxmemory-policy noeviction`. Only `appendfsync always` keeps what was
    acknowledged through a crash of the server. Each machine needs the same `master.key` in its `state` folder.
    """

    kind: Literal["sqlite", "redis"] = Field("sqlite", description="The embedded file, or Redis.")
    address: HostPort | None = Field(None, description="The Redis, where no Sentinel is asked.")
    sentinel: StateSentinel | None = Field(None, description="The Sentinels to ask for the master.")
    database: int = Field(0, ge=0, le=1_000, description="The database's number.")
    username: str | None = Field(None, description="ACL user.")
    password: Secret | None = Field(None, description="Its password.")
    tls: StateTls | None = Field(None, description="Needed beyond this machine.")
    timeout_ms: int = Field(250, ge=20, le=10_000, description="No answer by then is store_down.")
    replicas: int = Field(0, ge=0, le=10, description="Replicas that must have a write before it is acknowledged.")
    on_down: Literal["deny", "read_only"] = Field(
        "deny", description="read_only: for `grace_s` what was read before still counts; nothing new is accepted."
    )
    grace_s: float = Field(0, ge=0, le=300, description="How long an answer may be used again, for `read_only`.")


class Sessions(Model):
    """The sessions of people with a browser."""

    idle_s: Seconds = Field(1_800, description="A session that is not used for this long is over.")
    absolute_s: Seconds = Field(43_200, description="A session is over after this, used or not.")
    dbsc: bool = Field(True, description="Ask browsers to bind a session to a key of theirs (DBSC).")
    dbsc_s: int = Field(
        900,
        ge=180,
        le=3_600,
        description="How long such a proof lasts; a browser makes about six in nine minutes for one domain.",
    )


class Limits(Model):
    """Protection of the gateway itself."""

    header_count: int = Field(100, ge=10, le=1000, description="Header fields in a request.")
    header_kib: int = Field(32, ge=4, le=256, description="Size of a request's header section.")
    connections_per_client: int = Field(256, ge=1, description="Open connections from one address, in each worker.")
    connections: int = Field(20_000, ge=1, description="Open connections in each worker.")
    streams: int = Field(100, ge=1, le=1000, description="Concurrent HTTP/2 streams on a connection.")
    handshake_s: Seconds = Field(10, description="Time for the TLS handshake.")
    header_s: Seconds = Field(15, description="Time for a request's head to arrive.")
    idle_s: Seconds = Field(120, description="A connection without a request is closed after this.")
    stall_s: Seconds = Field(60, description="A peer that reads or sends nothing in the middle of a body is cut.")
    rejudge_s: Seconds = Field(5, description="What stays open is judged again so often, and at once when it changes.")


class Admin(Model):
    """The operator's own listener: metrics, health, readiness."""

    address: str = Field("127.0.0.1", description="Loopback by default.")
    port: Port = Field(9443, description="0 picks a free port.")
    expose: bool = Field(False, description="Needed for an address that others can reach; it has no sign-in.")


SignalKind = Literal[
    "session-revoked",
    "credential-change",
    "device-compliance-change",
    "risk-level-change",
    "assurance-level-change",
]


class SignalSource(Model):
    """Another system whose shared signals (SSF 1.0, CAEP 1.0) are followed."""

    issuer: str = Field(pattern=r"^https?://[^\s?#]+$", description="The transmitter, exactly as in its events.")
    audience: str = Field(min_length=1, description="What its events name as their audience: this gateway.")
    people_of: str | None = Field(None, description="The issuer whose people it speaks of, where it names none.")
    algorithms: tuple[Literal["RS256", "PS256", "ES256", "EdDSA"], ...] = Field(
        ("RS256", "ES256"), min_length=1, description="Signature algorithms it may use."
    )
    poll_url: str | None = Field(
        None, pattern=r"^https?://[^\s#]+$", description="Ask here for events (RFC 8936); without it they are pushed."
    )
    poll_token: Secret | None = Field(None, description="Bearer token for `poll_url`.")
    poll_s: Seconds = Field(2, description="Time between two polls.")
    ca: Path | None = Field(None, description="PEM: the CA of its server certificate.")


class SignalStream(Model):
    """Another system that follows this gateway's signals; exactly one of `push_url` and `poll_token`."""

    audience: str = Field(min_length=1, description="The receiver, as it wants to be named.")
    events: tuple[SignalKind, ...] = Field(
        ("session-revoked", "device-compliance-change"), min_length=1, description="What it is told of."
    )
    push_url: str | None = Field(None, pattern=r"^https?://[^\s#]+$", description="Where events are pushed (RFC 8935).")
    push_token: Secret | None = Field(None, description="Bearer token for `push_url`.")
    poll_token: Secret | None = Field(None, description="It polls here with this bearer token (RFC 8936).")
    ca: Path | None = Field(None, description="PEM: the CA of its server certificate.")


class SharedSignals(Model):
    """Shared signals: other systems follow what ends here, and this gateway follows them."""

    receive: dict[Name, SignalSource] = Field({}, description="Whom this gateway follows.")
    transmit: dict[Name, SignalStream] = Field({}, description="Who follows this gateway.")


class Config(Model):
    """The whole file."""

    version: Literal[1] = Field(1, description="The format of this file.")
    listen: Listen = Field(Listen(), description="Where people and machines connect.")
    host: Host = Field("gateway.localhost", description="The gateway's own host name (enrolment, JWKS, CRL).")
    name: str = Field(
        "Gateway",
        pattern=r"^[^:\x00-\x1f\x7f]{1,64}$",
        description="The company's name, on pages and in apps for codes.",
    )
    contact: str = Field(
        "",
        pattern=r"^[^\x00-\x1f\x7f]{0,200}$",
        description="Whom people ask when they are refused: a mail address, an https address, or plain words.",
    )
    tls: tuple[ServerCertificate, ...] = Field(min_length=1, description="Server certificates.")
    devices: Devices = Field(Devices(), description="The device PKI.")
    issuers: tuple[Issuer, ...] = Field((), description="OpenID providers.")
    policy: Policy = Field(Policy(), description="Where decisions come from.")
    services: dict[Name, Service] = Field(min_length=1, description="What is protected.")
    state: Path = Field(Path("state"), description="The folder of the gateway's own state (mode 0700).")
    store: StateStore = Field(StateStore(), description="Where the state is kept.")
    record: Record = Field(Record(), description="The record of decisions.")
    sessions: Sessions = Field(Sessions(), description="How long browser sessions live.")
    networks: Networks = Field(Networks(), description="Where client addresses are.")
    risk: Risk | None = Field(None, description="Signals of a stolen session or a strange sign-in; `{}` turns them on.")
    shared_signals: SharedSignals = Field(SharedSignals(), description="Signals to and from other systems (SSF, CAEP).")
    limits: Limits = Field(Limits(), description="Protection of the gateway itself.")
    admin: Admin = Field(Admin(), description="The operator's listener.")
    trusted_proxies: tuple[IpNetwork, ...] = Field((), description="Proxies whose X-Forwarded-For is believed.")

    def origin(self, host: str) -> str:
        """The web origin of one of this gateway's hosts, as browsers write it (RFC 6454 section 6.2)."""
        port = self.listen.port if self.listen.public_port is None else self.listen.public_port
        return f"https://{host}" if port == _HTTPS else f"https://{host}:{port}"
