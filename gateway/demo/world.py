"""The demo world: a provider, two services and the real gateway, each a process of its own, in a temporary folder.

All of it listens on 127.0.0.1, on ports that were free. However the block ends, the processes end and the folder goes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from gateway.core import paths
from gateway.demo.processes import SOURCE, Processes, ProcessFailed, environment, reserve_port
from gateway.identity.devices.ca_files import PkiFiles, found_pki, write_file
from gateway.identity.zitadel.events import EVENT_TYPES

GATEWAY, DIRECTORY, ECHO, PORTAL = "gateway.localhost", "directory.localhost", "echo.localhost", "portal.localhost"
BALANCER = "127.0.0.9"
ASK_AGAIN_S = 1
TRUST_DOMAIN = "gateway.internal"
_COMMAND_S = 60.0
_CRL_LIFE_S = 86_400.0

_CONFIG = """\
version: 1
name: Acme
contact: security@acme.localhost
host: {gateway}
listen: {{address: 127.0.0.1, port: {port}, workers: {workers}, drain_s: 5}}
admin: {{port: {admin_port}}}
trusted_proxies: [{balancer}/32]     # a load balancer that says where its visitors come from
tls: [{{certificate: pki/server.pem, key: pki/server.key}}]
devices: {{ca: pki/device-ca.pem, issuing_key: pki/device-ca.key, crl: pki/crl.pem}}
issuers:
  - issuer: {provider}
    profile: zitadel
    audiences: ["{project}"]
    introspection: {{client_id: "{client}", key: {{file: secrets/provider.json}}}}
    login: {{client_id: "{app}", secret: {{file: secrets/login}}, slug: dev}}
    zitadel: {{token: {{file: secrets/api}}, webhook_keys: [{{file: secrets/webhook}}], reconcile_s: 1}}
policy: {{path: policies}}
risk: {{}}

services:
  directory:                       # personal data, for one department on enrolled devices
    host: {directory}
    upstream: {directory_url}
    department: people
    sensitivity: high              # the starter policies add no-store
    introspect: {ask_again_s}                  # ask the provider this often (seconds) whether a session lives
    allow: {{roles: [staff]}}
  echo:
    host: {echo}
    upstream: {echo_url}
    introspect: {ask_again_s}
    allow: {{roles: [staff]}}
  portal:                          # the user plane: zero-log
    host: {portal}
    upstream: {echo_url}
    plane: user
    device: optional
    allow: {{public: true}}
    paths:
      /echo: {{allow: {{roles: [member]}}}}
"""

MASKING = """\
# Only an administrator sees salary accounts, phone numbers and birthdays in full.
package gateway.authz

obligations contains {"kind": "mask_json", "fields": ["salary_account", "phone", "birthday"], "keep_last": 2} if {
	input.service.name == "directory"
	input.request.path[0] == "people"
	not holds_one_of(["admin"])
}
"""


class WorldFailed(ProcessFailed):
    """A part of the world did not do what it was told; the text ends with what it wrote last."""


class World:
    """The demo world, as a context manager; `start` brings it up, and the end of the block takes it down."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
        self.config = self.folder / "gateway.yaml"
        self.policies = self.folder / "policies"
        self.pki = PkiFiles(self.folder / "pki")
        self.logs = self.folder / "logs"
        # Bound, never listening: the ports stay ours until the gateway shares them (SO_REUSEPORT).
        self._reserved = [reserve_port(), reserve_port()]
        self.port, self.admin_port = (reserved.getsockname()[1] for reserved in self._reserved)
        self.provider_url = self.echo_url = self.directory_url = ""
        self._processes = Processes(self.folder, self.logs)
        self._http = httpx.Client(trust_env=False, timeout=10)
        self._open = True
        atexit.register(self.stop)

    def __enter__(self) -> Self:
        """This world, empty so far."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""
        self.stop()

    # ---- coming up, going down ----

    def start(self) -> None:
        """Write the files, start the processes, wait until the gateway is ready. Raises `WorldFailed`."""
        self.logs.mkdir()
        found_pki(self.pki.folder, [GATEWAY, DIRECTORY, ECHO, PORTAL], now=time.time(), crl_life_s=_CRL_LIFE_S)
        policies = SOURCE / "policies"
        if not (policies / "gateway").is_dir():
            raise WorldFailed(f"There are no starter policies in {policies}; run the demo from the source tree.")
        shutil.copytree(policies, self.policies, ignore=shutil.ignore_patterns("cases", ".*", "OPA_VERSION"))
        (self.policies / "gateway" / "masking.rego").write_text(MASKING, encoding="utf-8")
        jwks = f"https://{GATEWAY}:{self.port}{paths.JWKS}"
        trust = ["--jwks", jwks, "--ca", str(self.pki.root), "--gateway-address", "127.0.0.1"]
        self._spawn("provider", ["gateway.demo.idp.provider", "--ca", str(self.pki.root)])
        self._spawn("directory", ["gateway.demo.services", "directory", *trust])
        self._spawn("echo", ["gateway.demo.services", "echo"])
        started = (self._processes.first_line(name) for name in ("provider", "directory", "echo"))
        self.provider_url, self.directory_url, self.echo_url = started
        client = self._http.get(f"{self.provider_url}/dev/client").raise_for_status().json()
        webhook_key = self._introduce(client["owner_token"])
        (self.folder / "secrets").mkdir(mode=0o700)
        for name, secret in (
            ("provider.json", json.dumps(client["key_file"])),
            ("login", client["login"]["secret"]),
            ("api", client["owner_token"]),
            ("webhook", webhook_key),
        ):
            write_file(self.folder / "secrets" / name, secret.encode(), 0o600)
        text = _CONFIG.format(
            gateway=GATEWAY,
            port=self.port,
            workers=self.workers,
            admin_port=self.admin_port,
            balancer=BALANCER,
            provider=self.provider_url,
            project=client["project"],
            client=client["client_id"],
            app=client["login"]["client_id"],
            directory=DIRECTORY,
            directory_url=self.directory_url,
            echo=ECHO,
            echo_url=self.echo_url,
            portal=PORTAL,
            ask_again_s=ASK_AGAIN_S,
        )
        self.config.write_text(text, encoding="utf-8")
        self._spawn("gateway", ["gateway", "serve", "-c", str(self.config)])
        self._wait_ready()

    def stop(self) -> None:
        """End every process, the last one first, and remove the folder. Safe to call again."""
        if not self._open:
            return
        self._open = False
        atexit.unregister(self.stop)
        self._processes.stop()
        for reserved in self._reserved:
            reserved.close()
        self._http.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _introduce(self, token: str) -> str:
        """Tell the provider about the gateway: where people come back to, where it hears of logouts and of events.

        The key with which the provider signs events.
        """
        own = f"https://{GATEWAY}:{self.port}"
        self.order(
            "app",
            redirect=f"{own}{paths.CALLBACK}dev",
            post_logout=own + paths.LOGOUT,
            logout_uri=f"{own}{paths.BACKCHANNEL_LOGOUT}dev",
        )
        headers = {"authorization": f"Bearer {token}"}
        target = {
            "name": "gateway",
            "restWebhook": {"interruptOnError": False},
            "timeout": "5s",
            "endpoint": f"{own}{paths.ZITADEL_WEBHOOK}dev",
        }
        answer = self._http.post(f"{self.provider_url}/v2/actions/targets", json=target, headers=headers)
        created = answer.raise_for_status().json()
        for event in EVENT_TYPES:
            execution = {"condition": {"event": {"event": event}}, "targets": [created["id"]]}
            put = self._http.put(f"{self.provider_url}/v2/actions/executions", json=execution, headers=headers)
            put.raise_for_status()
        return str(created["signingKey"])

    def asked(self, endpoint: str) -> int:
        """How many requests an endpoint of the provider ("token", "introspect", ...) has had."""
        answer = self._http.get(f"{self.provider_url}/dev/client").raise_for_status().json()
        return int(answer["asked"].get(endpoint, 0))

    def order(self, action: str, **wanted: Any) -> dict[str, Any]:
        """Order something of the provider: `lock`, `end-session`, `app`, `switch`, ... (see gateway.demo.zitadel)."""
        answer = self._http.post(f"{self.provider_url}/dev/{action}", json=wanted).raise_for_status()
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def _spawn(self, name: str, arguments: Sequence[str]) -> None:
        """Start a process of this world. Worlds of tests change the configuration here, before the gateway reads it."""
        self._processes.spawn(name, arguments)

    def _wait_ready(self) -> None:
        self._processes.wait_ready("gateway", self.admin_port)

    def tail(self, name: str) -> str:
        """The last lines that a process wrote."""
        return self._processes.tail(name)

    # ---- the operator ----

    def operator(self, *arguments: str) -> str:
        """What `gateway ARGUMENTS` of the command line says. Raises `WorldFailed` when it fails."""
        try:
            done = subprocess.run(  # noqa: S603  (our own command line)
                [sys.executable, "-m", "gateway", *arguments, "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=self.folder,
                env=environment(),
                timeout=_COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise WorldFailed(f"`gateway {arguments[0]}` took too long.") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode("utf-8", errors="replace").strip()
            raise WorldFailed(f"`gateway {' '.join(arguments[:2])}` ended with code {done.returncode}.\n{said}")
        return done.stdout.decode("utf-8")

    def add_device(self, name: str, owner: str) -> tuple[str, str]:
        """A pending device: its id and its one-time token."""
        added: dict[str, str] = json.loads(self.operator("device", "add", name, "--owner", owner, "--json"))
        return added["id"], added["token"]

    def policy_version(self) -> str:
        """The version of the policies that the gateway uses now."""
        answer: dict[str, Any] = self._http.get(f"http://127.0.0.1:{self.admin_port}/readyz").json()
        return str(answer["policy"])

    def metrics(self) -> bytes:
        """What the gateway's metrics say."""
        return self._http.get(f"http://127.0.0.1:{self.admin_port}/metrics").raise_for_status().content

    # ---- the provider and the services, asked directly ----

    def token(self, user: str, kind: str = "jwt") -> str:
        """An access token of `user`; `kind` as the provider's /dev/token knows it."""
        answer = self._http.post(f"{self.provider_url}/dev/token", json={"user": user, "kind": kind})
        return str(answer.raise_for_status().json()["token"])

    def end_session(self, user: str) -> None:
        """End the user's session at the provider."""
        self._http.post(f"{self.provider_url}/dev/end-session", json={"user": user}).raise_for_status()

    def requests_at_echo(self) -> int:
        """How many requests have reached the echo service."""
        return int(self._http.get(f"{self.echo_url}/count").raise_for_status().json()["requests"])

    def past_the_gateway(self, path: str) -> httpx.Response:
        """What the directory says to somebody who comes past the gateway."""
        return self._http.get(self.directory_url + path)

    def traces(self, canary: bytes) -> list[str]:
        """Every file of the world, and the metrics, in which the canary stands."""
        places = ["metrics"] if canary in self.metrics() else []
        for file in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if file.is_file() and canary in file.read_bytes():
                    places.append(str(file.relative_to(self.folder)))
        return places
