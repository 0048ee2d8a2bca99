"""What `gateway init` writes: a commented gateway.yaml, the starter policies, a PKI and the state folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import gateway
from gateway.config import SCHEMA_LINE, ConfigError, json_schema
from gateway.config.document import parse
from gateway.config.models import ADDRESS
from gateway.core import paths
from gateway.identity.devices.ca_files import write_file
from gateway.operations.errors import ActionFailed
from gateway.operations.pki import CRL_LIFE_S, make_pki

HTTPS_PORT = 443
TOP_LEVEL = ("gateway.yaml", "gateway.schema.json", "policies", "pki", "state", "secrets")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

_HEAD = """\
{schema_line}
# The gateway's configuration. `gateway check` looks at it and at everything it names.
# Relative paths start at this file's folder. An unknown key is an error.
version: 1

# On pages that people see: the company's name, and whom to ask.
name: Gateway
# contact: security@corp.example

# The gateway's own host name: enrolment, key set, revocation list.
host: {host}

listen:
  address: {address}
  port: {port}
  # workers: 2            # processes that share the port; one for each core is a good number

# Server certificates, picked by the host name a client asks for.
# The `names` of this one: `gateway pki show`; a new one: `gateway pki server`.
tls:
  - certificate: pki/server.pem
    key: pki/server.key

# The internal PKI. `gateway device add NAME` gives a one-time token; the device then runs `gateway device enroll`.
devices:
  ca: pki/device-ca.pem
  issuing_key: pki/device-ca.key
  crl: pki/crl.pem
"""
_NO_ISSUER = """\

# Who may vouch for people. Without an issuer nobody can sign in. Remove the first `# ` of each line to use it.
"""
_ISSUER = """\
issuers:
  - issuer: https://id.corp.example
    profile: zitadel
    audiences: ["123456789012345678"]     # the project's id
    introspection:                        # asked whether a token's session still lives
      client_id: "123456789012345679"     # an API application of that project
      key: {file: secrets/zitadel.json}   # its key file, mode 0600; a secret never stands in this file
    # login:                              # people with a browser sign in here; `gateway zitadel bootstrap` makes it
    #   client_id: "123456789012345680"
    #   secret: {file: secrets/login}
"""
_PROVIDER = """\

# Who vouches for people. The provider must know this redirect URI: {redirect}
issuers:
  - issuer: {issuer}
    profile: {profile}
    audiences: [{audience}]
    login:
      client_id: {client_id}
      secret: {{file: secrets/login}}
      slug: {slug}
"""
_EMPTY_AMR = """\
      empty_amr: accept     # many providers do not say how somebody signed in; it then proves no second factor
"""
_MIDDLE = """\

policy:
  path: policies
  # engine: opa           # decisions by an OPA server instead of in process
  # url: http://127.0.0.1:8181

# What is protected.
services:
"""
_SERVICE = """\
  {name}:
    host: {host}
    upstream: {upstream}
    device: {device}{device_note}
{introspect}    allow:
      roles: [{role}]{role_note}
{mfa}    # department: it        # only people of this department
    # paths:                # what is different below a path
    #   /admin: {{sensitivity: high, allow: {{roles: [admin]}}}}
"""
_DEVICE_NOTES = {
    "required": "        # only enrolled devices",
    "optional": "        # `required`: only devices that `gateway device add` let in",
}
_EVERYBODY = '"*"'
_ROLE_NOTES = {
    "staff": "        # one of these roles is needed",
    _EVERYBODY: "          # everybody who has signed in; name roles to let fewer in",
}
_INTROSPECT = "    introspect: never       # the provider is not asked again whether a token's session still lives\n"
_NO_MFA = "      mfa: false            # true: a second factor is needed, and people set one up at their first visit\n"
_RISK = """\

# How unusual a request may be; policies/gateway/risk.rego says what follows. Country data come with the gateway.
{risk}
"""
_RISK_LATER = "# risk: {}             # needs a second factor: who has none is new, and is asked to set one up"
_TAIL = """\
# networks: {company: [10.0.0.0/8], vpn: [10.8.0.0/16]}   # where a country says nothing

# state: state            # the gateway's own state, mode 0700
# record: {file: state/decisions.jsonl}
# admin: {address: 127.0.0.1, port: 9443}
# trusted_proxies: [10.0.0.0/8]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """The gateway's own web application at an OpenID provider. `slug` is the issuer's part of the redirect URI."""

    issuer: str
    client_id: str
    secret: str = field(repr=False)
    audience: str
    slug: str
    profile: Literal["strict", "zitadel"] = "strict"
    knows_amr: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the file says: hosts (the gateway's own, then those of services) and the upstreams of the services.

    `provider` None leaves a commented example. `everybody`: whoever has signed in may enter, without a second factor.
    """

    hosts: Sequence[str]
    upstreams: Sequence[str]
    provider: Provider | None = None
    device: Literal["required", "optional"] = "required"
    everybody: bool = False
    address: str = "0.0.0.0"  # noqa: S104  (as `listen.address`)
    port: int = 8443
    admin_port: int | None = None

    def origin(self, host: str) -> str:
        """The origin of one of the hosts, as a browser writes it."""
        return f"https://{host}" if self.port == HTTPS_PORT else f"https://{host}:{self.port}"

    @property
    def redirect_uri(self) -> str:
        """What has to be registered at the provider. "" without one."""
        return "" if self.provider is None else self.origin(self.hosts[0]) + paths.CALLBACK + self.provider.slug


@dataclass(frozen=True, slots=True)
class Started:
    """What was written where."""

    config: Path
    policies: Path
    pki: Path
    state: Path


def issuer_example() -> str:
    """The issuer block as it looks without its comment signs."""
    return _ISSUER


def starter_yaml(site: Site) -> str:
    """The commented file."""
    text = _HEAD.format(
        schema_line=SCHEMA_LINE, host=_scalar(site.hosts[0]), address=_scalar(site.address), port=site.port
    )
    text += _issuers(site) + _MIDDLE
    for name, host, upstream in zip(_names(site.hosts[1:]), site.hosts[1:], _upstreams(site), strict=True):
        role = _EVERYBODY if site.everybody else "staff"
        text += _SERVICE.format(
            name=_scalar(name),
            host=_scalar(host),
            upstream=_scalar(upstream),
            device=site.device,
            device_note=_DEVICE_NOTES[site.device],
            introspect=_INTROSPECT if site.provider else "",
            role=role,
            role_note=_ROLE_NOTES[role],
            mfa=_NO_MFA if site.everybody else "",
        )
    admin = "" if site.admin_port is None else f"\nadmin: {{port: {site.admin_port}}}\n"
    return text + _RISK.format(risk=_RISK_LATER if site.everybody else "risk: {}") + _TAIL + admin


def _issuers(site: Site) -> str:
    provider = site.provider
    if provider is None:
        return _NO_ISSUER + "".join(f"# {line}\n" for line in _ISSUER.splitlines())
    text = _PROVIDER.format(
        redirect=site.redirect_uri,
        issuer=_scalar(provider.issuer),
        profile=provider.profile,
        audience=_quoted(provider.audience),
        client_id=_quoted(provider.client_id),
        slug=provider.slug,
    )
    return text if provider.knows_amr else text + _EMPTY_AMR


def _names(hosts: Iterable[str]) -> Sequence[str]:
    """A name for each service: the first label of its host, with a number where two are the same."""
    names: list[str] = []
    for host in hosts:
        label = "".join(letter for letter in host.partition(".")[0] if letter.isascii() and letter.isalnum()) or "app"
        names.append(label if label not in names else f"{label}-{len(names)}")
    return names


def _upstreams(site: Site) -> Sequence[str]:
    """One for each service: the last one given serves for the rest."""
    missing = len(site.hosts) - 1 - len(site.upstreams)
    return [*site.upstreams, *[site.upstreams[-1]] * max(0, missing)]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _scalar(text: str) -> str:
    """Text as a YAML scalar, in quotes where it needs them."""
    try:
        is_plain = parse(f"- {text}".encode(), Path()).root.data == [text]
    except ConfigError:
        is_plain = False
    return text if is_plain else json.dumps(text)


def hosts(given: Sequence[str]) -> list[str]:
    """The gateway's own host and at least one for a service. Raises ActionFailed for what is no host name."""
    own = given[0] if given else "gateway.localhost"
    chosen = [own, *(given[1:] or [f"app.{own.partition('.')[2] or own}"])]
    for host in chosen:
        if not _HOST.fullmatch(host):
            raise ActionFailed(f"`{host}` is no host name.", "Write it in lower case, such as gateway.corp.example.")
    if len(set(chosen)) != len(chosen):
        raise ActionFailed("Two of the hosts are the same.", "Give each service a host of its own.")
    return chosen


def shipped_policies() -> Path:
    """The folder of starter policies. Raises ActionFailed when this installation has none."""
    folder = Path(gateway.__file__).resolve().parent.parent / "policies"
    if not (folder / "gateway").is_dir():
        raise ActionFailed(f"There are no starter policies in {folder}.", "Install the whole wheel.")
    return folder


def start(folder: Path, site: Site, *, policies: Path | None = None) -> Started:
    """Write everything, with these policies or the shipped ones. Raises ActionFailed before anything is written.

    It does when a part of it is there already, and for an upstream that is no address.
    """
    started = Started(folder / "gateway.yaml", folder / "policies", folder / "pki", folder / "state")
    schema, secrets = folder / "gateway.schema.json", folder / "secrets"
    parts = [started.config, schema, started.policies, started.pki, started.state]
    if site.provider is not None:
        parts.append(secrets)
    existing = [str(path) for path in parts if path.exists()]
    if existing:
        raise ActionFailed(f"Nothing is overwritten, and there is: {', '.join(existing)}.", "Choose an empty folder.")
    for upstream in site.upstreams:
        if not re.fullmatch(ADDRESS, upstream):
            raise ActionFailed("The upstream is no address.", "Write it like http://127.0.0.1:8080.")
    source = policies or shipped_policies()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        make_pki(started.pki, site.hosts, CRL_LIFE_S)
        started.state.mkdir(mode=0o700)
        if site.provider is not None:
            secrets.mkdir(mode=0o700)
            write_file(secrets / "login", site.provider.secret.encode(), 0o600)
        shutil.copytree(source, started.policies, ignore=shutil.ignore_patterns("cases", ".*", "OPA_VERSION"))
        schema.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
        # Last: a folder with a gateway.yaml is a complete one.
        started.config.write_text(starter_yaml(site), encoding="utf-8")
    except OSError as error:
        raise ActionFailed(f"{folder} cannot be written: {error.strerror or error}.") from error
    return started
