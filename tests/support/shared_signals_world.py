"""Two gateways that follow each other's signals, and a device manager that both hear of.

The near gateway pushes to the far one and polls it. Each has a store of its own; both know the same people.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt

from gateway.adapters.sqlite.store import SqliteStore
from gateway.demo.clients.http import Browser, DeviceFiles
from gateway.demo.idp.accounts import PEOPLE
from gateway.demo.idp.token_issuer import Key
from gateway.demo.world import ECHO, GATEWAY, World
from gateway.identity.devices.ca_files import renew_server, write_file
from tests.support.redis_server import free_port

HOST = "localhost"  # a name that every machine knows: the gateways look each other up


CAEP = "https://schemas.openid.net/secevent/caep/event-type/"


FRESH_S = 4


SUBJECTS = {person.user: person.subject for person in PEOPLE}


RULES = f"""\
package gateway.authz

vpn_wanted if input.request.query.vpn

blocks contains "vpn_required" if {{
	vpn_wanted
	not input.client.vpn
}}

posture_wanted if input.request.query.posture

posture_is_known if {{
	input.device.posture.kernel != ""
	input.now - input.device.posture.reported_at < {FRESH_S}
}}

blocks contains "posture_needed" if {{
	posture_wanted
	not posture_is_known
}}

blocks contains "device_not_compliant" if {{
	posture_wanted
	input.device.posture.compliant == false
}}
"""


_NEAR = """
shared_signals:
  transmit:
    far: {{audience: "{far}", push_url: "{far}/.gateway/ssf/push/near", ca: pki/root.pem}}
  receive:
    far:
      issuer: {far}
      audience: {near}
      people_of: {people}
      poll_url: {far}/.gateway/ssf/poll/near
      poll_token: {{file: secrets/poll}}
      poll_s: 1
      ca: pki/root.pem
"""


_FAR = """
networks: {{vpn: [127.0.0.0/8]}}
state: state-far
record: {{file: state-far/decisions.jsonl}}
shared_signals:
  transmit:
    near: {{audience: "{near}", poll_token: {{file: secrets/poll}}}}
  receive:
    near: {{issuer: "{near}", audience: "{far}", people_of: "{people}", ca: pki/root.pem}}
    manager: {{issuer: "{manager}", audience: "{far}", people_of: "{people}"}}
"""


class Manager:
    """A device manager: its keys on loopback, and tokens as it likes them."""

    def __init__(self) -> None:
        self.key = Key()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = {"issuer": outer.url, "jwks_uri": f"{outer.url}/jwks"}
                body = json.dumps({"keys": [outer.key.jwk()]} if self.path == "/jwks" else found).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def token(self, audience: str, kind: str, about: dict[str, Any], key: Key | None = None, **details: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": audience,
            "jti": secrets.token_urlsafe(12),
            "iat": now,
            "sub_id": about,
            "events": {CAEP + kind: {"event_timestamp": now, **details}},
        }
        headers = {"typ": "secevent+jwt", "kid": self.key.kid}
        return jwt.encode(claims, (key or self.key).private, "RS256", headers=headers)


class Pair(World):
    """The demo world with its gateway (near) and another one (far)."""

    def __init__(self, manager: Manager) -> None:
        super().__init__()
        self.manager = manager
        self.far_port, self.far_admin = free_port(), free_port()
        self.near, self.far = f"https://{HOST}:{self.port}", f"https://{HOST}:{self.far_port}"

    def _spawn(self, name: str, arguments: Sequence[str]) -> None:
        if name == "gateway":
            hosts = [GATEWAY, ECHO, "directory.localhost", "portal.localhost", HOST]
            renew_server(self.pki, hosts, now=time.time())
            write_file(self.folder / "secrets/poll", secrets.token_urlsafe(24).encode(), 0o600)
            (self.policies / "gateway/demands.rego").write_text(RULES)
            text = (
                self.config.read_text()
                .replace(f"host: {GATEWAY}\n", f"host: {HOST}\n", 1)
                .replace("drain_s: 5", "drain_s: 1")
            )
            self.config.write_text(text + self._signals(_NEAR))
            self._write_far(text)
        super()._spawn(name, arguments)

    def _signals(self, text: str) -> str:
        return text.format(near=self.near, far=self.far, people=self.provider_url, manager=self.manager.url)

    def _write_far(self, text: str) -> None:
        shutil.copy(self.pki.crl, self.folder / "far-crl.pem")
        text = text.replace(f"port: {self.port},", f"port: {self.far_port},")
        text = text.replace(f"port: {self.admin_port}}}", f"port: {self.far_admin}}}")
        text = text.replace("crl: pki/crl.pem", "crl: far-crl.pem")
        (self.folder / "far.yaml").write_text(text + self._signals(_FAR))

    def start_far(self) -> None:
        self._spawn("far", ["gateway", "serve", "-c", str(self.folder / "far.yaml")])
        until(self._far_is_ready, 30)

    def stop_far(self) -> None:
        process: subprocess.Popen[bytes] = self._processes.named("far")
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    def _far_is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.far_admin}/readyz", trust_env=False).is_success
        return False

    def known_at_both(self, device_id: str) -> None:
        """The far gateway knows a device of the near one, as a company's device manager would see to."""

        async def copy() -> None:
            async with self.store("state") as here, self.store("state-far") as there:
                record = await here.device(device_id)
                assert record is not None
                await there.add_device(record)

        asyncio.run(copy())

    @contextlib.asynccontextmanager
    async def store(self, state: str) -> AsyncIterator[SqliteStore]:
        """The store of a gateway, as its commands open it."""
        folder = self.folder / state
        store = SqliteStore(folder / "gateway.sqlite", (folder / "master.key").read_bytes())
        try:
            yield store
        finally:
            await store.close()


def until(wanted: Callable[[], object], seconds: float = 10) -> float:
    started = time.monotonic()
    while not wanted():
        assert time.monotonic() - started < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - started


@dataclass
class Place:
    pair: Pair
    device_id: str
    folder: Path
    open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def browser(self, port: int) -> Browser:
        files = DeviceFiles(self.folder / "device.pem", self.folder / "device.key")
        made = Browser(port, ECHO, self.pair.pki.root, files, http2=False)
        self.open.callback(made.close)
        return made

    def both(self) -> tuple[Browser, Browser]:
        return self.browser(self.pair.port), self.browser(self.pair.far_port)

    def token(self, user: str) -> str:
        """An access token of a new session."""
        self.pair.end_session(user)
        return self.pair.token(user)

    def revoke(self, user: str, state: str = "state") -> None:
        """End the person's sessions at one gateway, as `gateway session revoke` does."""

        async def revoked() -> None:
            async with self.pair.store(state) as store:
                for session in await store.sessions(SUBJECTS[user]):
                    assert await store.revoke_session(session.id, time.time(), "left")

        asyncio.run(revoked())

    def known(self, user: str, state: str) -> int:
        """How many sessions of a person a gateway has heard of."""

        async def count() -> int:
            async with self.pair.store(state) as store:
                return len(await store.sessions(SUBJECTS[user]))

        return asyncio.run(count())

    def running(self, user: str, state: str) -> int:
        """How many sessions of a person have not ended at a gateway."""

        async def count() -> int:
            async with self.pair.store(state) as store:
                return sum(one.revoked_at is None for one in await store.sessions(SUBJECTS[user]))

        return asyncio.run(count())

    def push(self, token: str) -> httpx.Response:
        """What the far gateway says to a token that the device manager pushes."""
        browser = Browser(self.pair.far_port, HOST, self.pair.pki.root)
        self.open.callback(browser.close)
        headers = {"content-type": "application/secevent+jwt"}
        return browser.ask("/.gateway/ssf/push/manager", method="POST", headers=headers, content=token)

    def about(self, user: str) -> dict[str, Any]:
        return {"format": "iss_sub", "iss": self.pair.provider_url, "sub": SUBJECTS[user]}

    def about_device(self) -> dict[str, Any]:
        return {"format": "complex", "device": {"format": "opaque", "id": self.device_id}}


def verdict(browser: Browser, token: str, path: str = "/headers") -> str:
    """ "served", the reason of the refusal, or "cut" for one that ended in the middle."""
    try:
        answer = browser.ask(path, token)
    except httpx.TransportError:
        return "cut"
    return "served" if answer.status_code == 200 else answer.headers["x-gateway-reason"]
