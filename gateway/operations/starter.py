"""What `gateway init` writes: a commented gateway.yaml, the starter policies, a PKI and the state folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gateway
from gateway.config import SCHEMA_LINE, ConfigError, json_schema
from gateway.config.document import parse
from gateway.config.models import ADDRESS
from gateway.operations.actions import CRL_LIFE_S, make_pki
from gateway.operations.errors import ActionFailed

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
  address: 0.0.0.0
  port: 8443
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
_MIDDLE = """\

policy:
  path: policies
  # engine: opa           # decisions by an OPA server instead of in process
  # url: http://127.0.0.1:8181

# What is protected. Below ten lines each.
services:
"""
_SERVICE = """\
  {name}:
    host: {host}
    upstream: {upstream}
    department: it
    device: required        # only enrolled devices
    allow:
      roles: [staff]        # one of these roles is needed
    # paths:                # what is different below a path
    #   /admin: {{sensitivity: high, allow: {{roles: [admin]}}}}
"""
_TAIL = """\

# How unusual a request may be; policies/gateway/risk.rego says what follows. Country data come with the gateway.
risk: {}
# networks: {company: [10.0.0.0/8], vpn: [10.8.0.0/16]}   # where a country says nothing

# state: state            # the gateway's own state, mode 0700
# record: {file: state/decisions.jsonl}
# admin: {address: 127.0.0.1, port: 9443}
# trusted_proxies: [10.0.0.0/8]
"""


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


def starter_yaml(hosts: Sequence[str], upstream: str) -> str:
    """The commented file for the gateway's own host, then those of services; at least two hosts."""
    text = _HEAD.format(schema_line=SCHEMA_LINE, host=_scalar(hosts[0]))
    text += "".join(f"# {line}\n" for line in _ISSUER.splitlines()) + _MIDDLE
    names: list[str] = []
    for host in hosts[1:]:
        label = "".join(letter for letter in host.partition(".")[0] if letter.isascii() and letter.isalnum()) or "app"
        name = label if label not in names else f"{label}-{len(names)}"
        names.append(name)
        text += _SERVICE.format(name=_scalar(name), host=_scalar(host), upstream=_scalar(upstream))
    return text + _TAIL


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


def start(folder: Path, hosts: Sequence[str], upstream: str) -> Started:
    """Write everything. Raises ActionFailed before anything is written when a part of it is there already."""
    made = Started(folder / "gateway.yaml", folder / "policies", folder / "pki", folder / "state")
    schema = folder / "gateway.schema.json"
    there = [str(path) for path in (made.config, schema, made.policies, made.pki, made.state) if path.exists()]
    if there:
        raise ActionFailed(f"Nothing is overwritten, and there is: {', '.join(there)}.", "Choose an empty folder.")
    if not re.fullmatch(ADDRESS, upstream):
        raise ActionFailed("The upstream is no address.", "Write it like http://127.0.0.1:8080.")
    policies = shipped_policies()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        make_pki(made.pki, hosts, CRL_LIFE_S)
        made.state.mkdir(mode=0o700)
        shutil.copytree(policies, made.policies, ignore=shutil.ignore_patterns("cases", ".*", "OPA_VERSION"))
        schema.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
        # Last: a folder with a gateway.yaml is a complete one.
        made.config.write_text(starter_yaml(hosts, upstream), encoding="utf-8")
    except OSError as error:
        raise ActionFailed(f"{folder} cannot be written: {error.strerror or error}.") from error
    return made
