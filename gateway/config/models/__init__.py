"""What may stand in the configuration file: frozen models, with a description for every key.

Secrets never stand in the file: a `Secret` names a file or an environment variable. Relative paths are relative to the
file. `gateway config schema` prints the JSON Schema for editors, `gateway config docs` docs/configuration.md.
"""

from __future__ import annotations

from gateway.config.models.devices import Devices
from gateway.config.models.issuers import Introspection, Issuer, Login, ZitadelApi
from gateway.config.models.listen import Admin, Limits, Listen, ServerCertificate
from gateway.config.models.policy import Policy
from gateway.config.models.risk import Networks, Risk
from gateway.config.models.root import Config
from gateway.config.models.services import (
    INTROSPECT_AUTO_S,
    Allow,
    Health,
    KeptHeader,
    Mfa,
    PathRule,
    Service,
    Upstream,
)
from gateway.config.models.ssf import SharedSignals, SignalKind, SignalSource, SignalStream
from gateway.config.models.state import Record, Sessions, StateSentinel, StateStore, StateTls
from gateway.config.models.values import (
    ADDRESS,
    Address,
    Country,
    Host,
    HostPort,
    IpNetwork,
    Method,
    Model,
    Name,
    Port,
    Seconds,
    Secret,
)

__all__ = [
    "ADDRESS",
    "INTROSPECT_AUTO_S",
    "Address",
    "Admin",
    "Allow",
    "Config",
    "Country",
    "Devices",
    "Health",
    "Host",
    "HostPort",
    "Introspection",
    "IpNetwork",
    "Issuer",
    "KeptHeader",
    "Limits",
    "Listen",
    "Login",
    "Method",
    "Mfa",
    "Model",
    "Name",
    "Networks",
    "PathRule",
    "Policy",
    "Port",
    "Record",
    "Risk",
    "Seconds",
    "Secret",
    "ServerCertificate",
    "Service",
    "Sessions",
    "SharedSignals",
    "SignalKind",
    "SignalSource",
    "SignalStream",
    "StateSentinel",
    "StateStore",
    "StateTls",
    "Upstream",
    "ZitadelApi",
]
