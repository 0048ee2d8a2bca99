"""A real Chromium 150 with keys in software, against these very parts on http://localhost.

Newer versions register no key that is not in hardware, so this needs Debian's build of that one version. It is looked
for in `.tools/`, then asked for from Debian; where it cannot be had the test is skipped, also in CI: no other browser
can show this.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import pytest

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.core import paths as own
from gateway.core.canonical import admit
from gateway.core.cookies import BOUND, SESSION, cookie
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RawRequest, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Identity
from gateway.endpoints.dbsc import DbscEndpoints, with_registration_offer
from gateway.endpoints.router import Router
from gateway.identity.oidc.relying_party import Tokens
from gateway.identity.sessions import dbsc
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.cookies import BrowserBinder, CookieReader
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions
from gateway.identity.sessions.token_refresh import Refresher
from gateway.replies.replies import Reply, redirect
from tests.support.paths import TOOLS

VERSION = "150.0.7871.100"
PACKAGES = [f"{name}={VERSION}-1~deb12u1" for name in ("chromium", "chromium-common")]
CHROMIUM = TOOLS / f"chromium-{VERSION}"
FEATURES = "DeviceBoundSessions,EnableBoundSessionCredentialsSoftwareKeysForManualTesting"
# The browser signs six times in nine minutes for one site at most, so each step below has one refresh.
LIFE_S, IN_FLIGHT_S = 3, 0.5
ROUTE = Route("wiki", "localhost")
ISSUER = "https://id.example.com"
PAGE = """<!doctype html><link rel=icon href="data:,"><script>
setTimeout(() => fetch("/ahead"), 500)
setTimeout(() => fetch("/late"), 5000)
setTimeout(() => location = "http://127.0.0.1:%d/to-linked", 9500)
</script>"""
ELSEWHERE = """<!doctype html><link rel=icon href="data:,"><script>location = "http://localhost:%d%s"</script>"""
LINKED = """<!doctype html><link rel=icon href="data:,"><script>
setTimeout(() => fetch("/after"), 6000)
setTimeout(() => fetch("/and-after"), 6500)
</script>"""


@pytest.fixture(scope="session")
def chromium() -> str:
    program = CHROMIUM / "usr/lib/chromium/chromium"
    if not program.exists():
        problem = _get(CHROMIUM)
        if problem:
            pytest.skip(f"Chromium {VERSION} of Debian cannot be had here ({problem}); no other version can show this")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if VERSION not in done.stdout:
        pytest.skip(f"Chromium {VERSION} does not start here: {done.stderr.strip()[-200:]}")
    return str(program)


def _get(folder: Path) -> str:
    """Fetch and unpack the packages, without installing them; why not, "" when they are there."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return "this is no Debian"
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    # Lists of our own, for a machine that has none yet.
    ours = ["-o", f"Dir::State::Lists={part}/lists", "-o", f"Dir::Cache={part}/cache"]
    for name in ("lists/partial", "cache/archives/partial"):
        (part / name).mkdir(parents=True)
    try:
        if problem := _run(part, "apt-get", "download", *PACKAGES):
            _run(part, "apt-get", *ours, "update")
            problem = _run(part, "apt-get", *ours, "download", *PACKAGES)
        for package in part.glob("*.deb"):
            problem = problem or _run(part, "dpkg", "-x", str(package), "root")
        if not problem and not folder.exists():
            (part / "root").rename(folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "" if folder.exists() else type(error).__name__
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return problem


def _run(folder: Path, *command: str) -> str:
    """What went wrong, "" for nothing."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]


@dataclass
class Seen:
    """One request as it came in, and what was made of it."""

    at: float
    path: str
    headers: dict[str, str]
    status: int = 0
    answer: dict[str, str] = field(default_factory=dict)
    said: Any = None


class Site:
    """A service on http://localhost behind the real parts: sessions, proofs, own paths, a store in SQLite."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "gateway.sqlite", bytes(32))
        documents = SqliteDocuments(self.store)
        self.logins = LoginSessions(documents, self.store, time.time, random)
        self.cookies = BrowserSessions(documents, time.time, random)
        self.refresher = Refresher(self.logins, documents, {}, time.time, random)
        self.reader = CookieReader(self.cookies, self.logins, self.refresher, {ISSUER}, time.time)
        self.keys = dbsc.Dbsc(
            documents,
            self.cookies,
            self.logins,
            origin=lambda host: f"http://{host}:{self.port}",
            clock=time.time,
            random=random,
            life_s=LIFE_S,
        )
        self.binder = BrowserBinder(self.logins, self.store, time.time, (self.keys,))
        self.router = Router(DbscEndpoints(dbsc=self.keys).endpoints())
        self.seen: list[Seen] = []
        self.problems: list[Exception] = []
        self.login: LoginSession | None = None
        self.port = 0

    async def answer(self, facts: RequestFacts) -> Reply:
        if facts.path.startswith("/.gateway/"):
            reply = await self.router.answer(facts, None, b"")
            assert isinstance(reply, Reply)
            return reply
        if facts.path == "/arrive":
            identity = Identity(ISSUER, "ada", "session", "sid", time.time() + 900)
            login = await self.logins.create(identity, "", Tokens("at", None, "id", None), device_id="", agent="")
            assert isinstance(login, LoginSession)
            self.login = login
            value = await self.cookies.open(login, facts.host, None)
            return await with_registration_offer(
                self.keys, redirect("/page", "login_ok", "-", (cookie(SESSION, value),))
            )
        if facts.host == "127.0.0.1":
            return _page(200, ELSEWHERE % (self.port, facts.path.replace("/to-", "/")))
        identity_or_not = await self.reader.read(facts, ROUTE)
        if isinstance(identity_or_not, Identity):
            bound = await self.binder.bind(identity_or_not, None, facts, ROUTE)
            said = bound.reason if isinstance(bound, Refusal) else list(bound.bound_by)
        else:
            said = identity_or_not.reason if isinstance(identity_or_not, Refusal) else "nobody"
        status = 200 if isinstance(said, list) else 401
        page = {"/page": PAGE % self.port, "/linked": LINKED}.get(facts.path, "")
        return _page(status, page, ("x-said", json.dumps(said)))

    async def steal(self, cookies: str) -> Any:
        """What somebody else gets with these cookies."""

        def ask() -> Any:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", "/stolen", headers={"host": f"localhost:{self.port}", "cookie": cookies})
            said = connection.getresponse().getheader("x-said", "null")
            connection.close()
            return json.loads(said)

        return await asyncio.to_thread(ask)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except Exception as problem:  # noqa: BLE001  (told by the test itself)
            self.problems.append(problem)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = h11.Connection(h11.SERVER)
        with contextlib.suppress(ConnectionError, h11.RemoteProtocolError):
            while (event := wire.next_event()) is h11.NEED_DATA or isinstance(event, h11.Data):
                if event is h11.NEED_DATA:
                    wire.receive_data(await reader.read(65_536))
            if isinstance(event, h11.Request):
                request = event
                while not isinstance(wire.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
                    wire.receive_data(await reader.read(65_536))
                head = RawRequest(request.method, b"", request.target, list(request.headers), "1.1")
                host = dict(request.headers).get(b"host", b"").decode().partition(":")[0]
                facts = admit(head, Peer("127.0.0.1", 1, sni=host, local_port=self.port))
                assert isinstance(facts, RequestFacts), facts
                seen = Seen(time.monotonic(), facts.path, dict(facts.headers))
                self.seen.append(seen)
                reply = await self.answer(facts)
                seen.status, seen.answer = reply.status, dict(reply.headers)
                seen.said = json.loads(seen.answer.get("x-said", "null"))
                headers = [*reply.headers, ("content-length", str(len(reply.body))), ("connection", "close")]
                writer.write(wire.send(h11.Response(status_code=reply.status, headers=headers)) or b"")
                writer.write(wire.send(h11.Data(data=reply.body)) or b"")
                await writer.drain()

    def of(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path and seen.status]

    async def until(self, path: str, count: int = 1) -> list[Seen]:
        """The first so many requests for a path."""
        async with asyncio.timeout(30):
            while len(found := self.of(path)) < count:
                await asyncio.sleep(0.02)
        return found[:count]


def _page(status: int, text: str, *more: tuple[str, str]) -> Reply:
    return Reply(status, (("content-type", "text/html"), *more), text.encode(), "")


def random() -> str:
    return secrets.token_urlsafe(32)


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(dbsc, "_IN_FLIGHT_S", IN_FLIGHT_S)
    made = Site(tmp_path)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()
    await made.refresher.close()
    await made.store.close()


@contextlib.asynccontextmanager
async def browsing(program: str, folder: Path, url: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={folder}",
        f"--enable-features={FEATURES}",
        url,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_a_real_browser_registers_refreshes_and_shuts_out_a_thief(
    site: Site, chromium: str, tmp_path: Path
) -> None:
    async with browsing(chromium, tmp_path / "profile", f"http://127.0.0.1:{site.port}/to-arrive"):
        # As from an identity provider, which is another site.
        (arrived,), (registered,) = await site.until("/arrive"), await site.until(own.DBSC_REGISTER)
        assert registered.status == 200
        assert registered.at - arrived.at < 2
        assert {"origin", "sec-fetch-site"}.isdisjoint(registered.headers)

        # While the cookie is still good, the next one is fetched beside the request.
        (ahead,) = await site.until("/ahead")
        assert ahead.said == ["dbsc"]
        asked, proven = await site.until(own.DBSC_REFRESH, 2)
        assert (asked.status, proven.status) == (403, 200)
        assert f'id="{asked.headers[dbsc.SESSION_ID]}"' in asked.answer[dbsc.CHALLENGE]
        assert {"origin", "sec-fetch-site"}.isdisjoint(proven.headers)

        # Once it is gone, the request waits for the next one.
        (late,) = await site.until("/late")
        *_, again = await site.until(own.DBSC_REFRESH, 4)
        assert (again.status, late.said) == (200, ["dbsc"])
        assert again.at < late.at
        assert bound(late) != bound(ahead)

        # The same for a link on another site.
        (linked,) = await site.until("/linked")
        assert linked.said == ["dbsc"]
        assert bound(linked) not in {bound(late), ""}

        # The session's own cookie is worth nothing elsewhere, and soon not even both of them.
        stolen = linked.headers["cookie"]
        assert await site.steal(stolen) == ["dbsc"]
        assert await site.steal(stolen.partition(";")[0]) == "binding_unproven"
        await asyncio.sleep(LIFE_S + IN_FLIGHT_S)
        assert await site.steal(stolen) == "binding_unproven"

        # What is over here is over in the browser: it forgets the key and asks no more.
        assert site.login is not None
        await site.logins.end(site.login.id, "signed out")
        (after,) = await site.until("/after")
        assert after.said == "session_revoked"
        before = len(site.of(own.DBSC_REFRESH))
        await site.until("/and-after")
        assert len(site.of(own.DBSC_REFRESH)) == before
    assert site.problems == []


def bound(seen: Seen) -> str:
    found = dict(pair.split("=") for pair in seen.headers["cookie"].split("; "))
    return found.get(BOUND, "")
