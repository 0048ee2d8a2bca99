"""The configuration: one YAML file -> validated, frozen models, and what follows from them."""

from gateway.config.describe import SCHEMA_LINE, json_schema, markdown
from gateway.config.loader import Loaded, load, read
from gateway.config.models import (
    Admin,
    Allow,
    Config,
    Devices,
    Health,
    Introspection,
    Issuer,
    Limits,
    Listen,
    Login,
    PathRule,
    Policy,
    Record,
    Secret,
    ServerCertificate,
    Service,
    Sessions,
    Upstream,
    ZitadelApi,
)
from gateway.config.problems import ConfigError, Problem
from gateway.config.publish import routes_of, rules_of
from gateway.config.secrets import SecretText, resolve_secret

__all__ = [
    "SCHEMA_LINE",
    "Admin",
    "Allow",
    "Config",
    "ConfigError",
    "Devices",
    "Health",
    "Introspection",
    "Issuer",
    "Limits",
    "Listen",
    "Loaded",
    "Login",
    "PathRule",
    "Policy",
    "Problem",
    "Record",
    "Secret",
    "SecretText",
    "ServerCertificate",
    "Service",
    "Sessions",
    "Upstream",
    "ZitadelApi",
    "json_schema",
    "load",
    "markdown",
    "read",
    "resolve_secret",
    "routes_of",
    "rules_of",
]
