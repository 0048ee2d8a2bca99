"""The whole file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from gateway.config.models.devices import Devices
from gateway.config.models.issuers import Issuer
from gateway.config.models.listen import Admin, Limits, Listen, ServerCertificate
from gateway.config.models.policy import Policy
from gateway.config.models.risk import Networks, Risk
from gateway.config.models.services import Service
from gateway.config.models.ssf import SharedSignals
from gateway.config.models.state import Record, Sessions, StateStore
from gateway.config.models.values import Host, IpNetwork, Model, Name

_HTTPS = 443


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
