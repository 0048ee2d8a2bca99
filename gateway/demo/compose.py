"""The world of docker-compose.yml: its secrets, its PKI, its configuration. Made once, kept in volumes.

`python -m gateway.demo.compose init` makes what is missing, `show` prints the administrator's first password, `adopt`
adds the issuer that `gateway zitadel bootstrap` printed. Nothing secret is in an image, a file of the repository, an
environment variable or an argument.
"""

from __future__ import annotations

import argparse
import json
import secrets
import string
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import ASGIApp

from gateway.core import paths
from gateway.demo.services import Assertions, directory
from gateway.identity.devices.ca import issue_server, pem_of
from gateway.identity.devices.ca_files import PkiFiles, found_pki, key_pem, load_authority, write_file

PORT = 8443
HOST, ISSUER_HOST, LOGIN_HOST, APP_HOST = "gateway.localhost", "id.localhost", "login.localhost", "app.localhost"
_CRL_LIFE_S = 7 * 86_400.0
_PRIVATE, _SHARED = 0o600, 0o444
# What docs/several-machines.md asks of a Redis user.
_REDIS_RULES = (
    "~gw:* &gw:* -@all +@connection +@read +@write -@dangerous +evalsha +script|load +publish +subscribe +wait +info"
)
_REDIS_CONF = f"""\
port 0
tls-port 6379
tls-cert-file /secret/redis.pem
tls-key-file /secret/redis.key
tls-auth-clients no
user default off
user gateway on >{{password}} {_REDIS_RULES}
appendonly yes
appendfsync always
save ""
dir /data
"""
_GATEWAY_YAML = f"""\
version: 1
host: {HOST}
listen: {{address: 0.0.0.0, port: {PORT}, workers: 2}}
tls:
  - {{certificate: pki/server.pem, key: pki/server.key}}
devices: {{ca: pki/device-ca.pem, issuing_key: pki/device-ca.key, crl: pki/crl.pem}}
policy: {{engine: opa, url: "http://opa:8181", path: /opt/gateway/app/policies, deadline_ms: 500}}
state: /state
store:
  kind: redis
  address: redis:6379
  username: gateway
  password: {{file: secrets/redis}}
  tls: {{ca: pki/root.pem}}
record: {{file: /state/decisions.jsonl}}
services:
  # Zitadel and its login are reached through the gateway: one port, one certificate. They sign people in themselves.
  id: {{host: {ISSUER_HOST}, upstream: "http://zitadel:8080", device: optional, allow: {{public: true}}}}
  login: {{host: {LOGIN_HOST}, upstream: "http://login:3000", device: optional, allow: {{public: true}}}}
  directory:
    host: {APP_HOST}
    upstream: http://demo:8080
    department: it
    device: optional
    allow: {{roles: [staff]}}
"""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the volumes are mounted; each of `database`, `redis` and `zitadel` is read by one other container."""

    config: Path = Path("/config")
    public: Path = Path("/out/public")
    database: Path = Path("/out/database")
    redis: Path = Path("/out/redis")
    zitadel: Path = Path("/out/zitadel")


def prepare(places: Places, now: float) -> list[str]:
    """Make what is missing: the names of what was made. Raises OSError."""
    parts: tuple[tuple[Path, Callable[[], None]], ...] = (
        (places.config / "pki" / "root.pem", lambda: _pki(places, now)),
        (places.database / "password", lambda: _database(places)),
        (places.redis / "redis.conf", lambda: _redis(places, now)),
        (places.zitadel / "steps.yaml", lambda: _zitadel(places, now)),
        (places.config / "gateway.yaml", lambda: _write(places.config / "gateway.yaml", _GATEWAY_YAML, _PRIVATE)),
    )
    names = []
    for path, make in parts:
        if not path.exists():
            make()
            names.append(path.name)
    return names


def adopt(places: Places, issuer_yaml: str) -> bool:
    """Add an `issuers` block to the configuration, which the gateway then loads by itself; False when it has one."""
    path = places.config / "gateway.yaml"
    text = path.read_text(encoding="utf-8")
    if "\nissuers:" in text:
        return False
    if not issuer_yaml.startswith("issuers:\n"):
        raise ValueError("that is no issuers block")
    _write(path, text + issuer_yaml.rstrip("\n") + "\n", _PRIVATE)
    return True


def demo_app() -> ASGIApp:
    """The demo service: a staff directory that believes the gateway's signature alone."""
    keys = f"https://{HOST}:{PORT}{paths.JWKS}"
    return directory(Assertions(keys, Places().public / "root.pem", "directory", ""))


def _pki(places: Places, now: float) -> None:
    hosts = [HOST, ISSUER_HOST, LOGIN_HOST, APP_HOST]
    files = found_pki(places.config / "pki", hosts, now=now, crl_life_s=_CRL_LIFE_S)
    write_file(places.public / "root.pem", files.root.read_bytes(), _SHARED)


def _database(places: Places) -> None:
    _write(places.database / "password", _password())


def _redis(places: Places, now: float) -> None:
    """The user's password on both sides, and a certificate that lasts as long as the CA that signs it."""
    password, pki, key = _password(), PkiFiles(places.config / "pki"), ec.generate_private_key(ec.SECP256R1())
    issuing = load_authority(pki.server_ca, pki.server_ca_key)
    life_s = issuing.certificate.not_valid_after_utc.timestamp() - now
    leaf = issue_server(issuing, key.public_key(), ["redis", "localhost"], now=now, life_s=life_s)
    _write(places.redis / "redis.pem", pem_of(leaf, issuing.certificate).decode("ascii"))
    _write(places.redis / "redis.key", key_pem(key).decode("ascii"))
    _write(places.redis / "ca.pem", pki.root.read_text(encoding="ascii"))
    _write(places.redis / "password", password)
    (places.config / "secrets").mkdir(mode=0o700, exist_ok=True)
    _write(places.config / "secrets" / "redis", password, _PRIVATE)
    _write(places.redis / "redis.conf", _REDIS_CONF.format(password=password))


def _zitadel(places: Places, now: float) -> None:
    """Zitadel's secrets: the master key (exactly 32 bytes), the database's password, the first instance's people."""
    alphabet = string.ascii_letters + string.digits
    _write(places.zitadel / "masterkey", "".join(secrets.choice(alphabet) for _ in range(32)))
    database = (places.database / "password").read_text(encoding="ascii")
    users = {"User": {"Username": "zitadel", "Password": _password()}, "Admin": {"Username": "postgres"}}
    for user in users.values():
        user["SSL"] = {"Mode": "disable"}  # type: ignore[assignment]  # both are on the network `data`, which has no way out
    users["Admin"]["Password"] = database
    settings = {"Database": {"postgres": {"Host": "db", "Port": 5432, "Database": "zitadel", **users}}}
    day, year = (datetime.fromtimestamp(now, UTC) + timedelta(days=days) for days in (1, 365))
    first = {
        "LoginClientPatPath": "/bootstrap/login-client.pat",
        "PatPath": "/bootstrap/admin.pat",
        "Org": {
            "Human": {"UserName": "admin", "Password": f"{_password()}-Aa1", "PasswordChangeRequired": True},
            "LoginClient": {
                "Machine": {"Username": "login-client", "Name": "Login client"},
                "Pat": {"ExpirationDate": year.isoformat()},
            },
            "Machine": {
                "Machine": {"Username": "gateway-bootstrap", "Name": "Gateway bootstrap"},
                "Pat": {"ExpirationDate": day.isoformat()},
            },
        },
    }
    # JSON is YAML.
    _write(places.zitadel / "config.yaml", json.dumps(settings))
    _write(places.zitadel / "steps.yaml", json.dumps({"FirstInstance": first}))


def _password() -> str:
    return secrets.token_urlsafe(32)


def _write(path: Path, text: str, mode: int = _SHARED) -> None:
    write_file(path, text.encode("utf-8"), mode)


def main(arguments: list[str] | None = None, places: Places | None = None) -> int:
    """Do one of the things above."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway.demo.compose", description="The world of the compose file."
    )
    parser.add_argument("what", choices=["init", "show", "adopt"])
    action: str = parser.parse_args(arguments).what
    places = places or Places()
    if action == "init":
        sys.stdout.write(f"made: {', '.join(prepare(places, time.time())) or 'nothing, all was there'}\n")
    elif action == "show":
        steps = json.loads((places.zitadel / "steps.yaml").read_text(encoding="utf-8"))
        human = steps["FirstInstance"]["Org"]["Human"]
        sys.stdout.write(f"{human['UserName']} {human['Password']}\n")
    else:
        sys.stdout.write("adopted\n" if adopt(places, sys.stdin.read()) else "adopted before\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
