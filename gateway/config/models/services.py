"""Section `services`: what is protected, where it is, who may use it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from gateway.config.models.values import Address, Country, Host, Method, Model, Seconds
from gateway.core.header_names import is_asserted, is_reserved


def _asserted(name: str) -> str:
    if not is_asserted(name) or is_reserved(name):
        raise ValueError("keep_headers names headers that would be stripped, but none that the gateway itself sets")
    return name


INTROSPECT_AUTO_S = 10.0
KeptHeader = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,127}$"), AfterValidator(_asserted)]


def _word_or_number(value: Any) -> str:
    return "(word)" if isinstance(value, str) else "(seconds)"


def _short_or_long(value: Any) -> str:
    return "(short)" if isinstance(value, str | bool) else "(long)"


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
    max_connections: int = Field(1024, ge=1, description="Open connections to it, in each worker; more wait.")
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
    authorization: Literal["gateway", "service"] = Field(
        "gateway",
        description="service: the Authorization header is the service's own (API tokens, Basic) and is passed on as it "
        "came; people are known by their session alone.",
    )
    identity_headers: bool = Field(False, description="Add plain X-Gateway-* identity headers as well.")
    preserve_host: bool = Field(True, description="Send the public host name, not the upstream's.")
    path_parameters: bool = Field(
        False, description="The service reads `;` in a path as any other character; refused otherwise."
    )
    encoded_slash: Literal["refuse", "keep"] = Field(
        "refuse", description="keep: %2F in a path is passed on, for services that read it as any other character."
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
