"""People with a browser: how soon a logout bites, one refresh for many requests, and a look-up among many sessions.

The demo world as it is (provider, services, a gateway with two workers, each a process), and for the look-up the store
in this process.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from bench.processes import BenchFailed
from gateway.adapters.sealing import read_or_make_master_key
from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.subject import Identity, Role
from gateway.demo.clients import http as client
from gateway.demo.clients.headless_browser import Person
from gateway.demo.world import DIRECTORY
from gateway.demo.world import World as DemoWorld
from gateway.identity.oidc.relying_party import Tokens
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions

_PUSHED, _RECONCILED = 60, 12
_PATIENCE_S = 15.0
_LIFE_S = 15
_PARALLEL, _THREADS = 200, 20
_SESSIONS, _LOOKUPS = 100_000, 20_000
_OK = 200


def measure(say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of this group, with the raw ones below `login`."""
    with DemoWorld(workers=2) as world:
        world.start()
        _, token = world.add_device("bench", "bob")
        _, device = client.enrol(world.port, world.pki.root, token, world.folder / "bench")
        person = Person(world.pki.root, device)
        say(f"{_PUSHED} logouts and locks at the provider, told by pushes")
        pushed = [_ending(world, person, lock=number % 2 == 1) for number in range(_PUSHED)]
        say(f"{_RECONCILED} logouts and locks at the provider, every push lost")
        world.order("switch", name="deliver_nothing", value=True)
        reconciled = [_ending(world, person, lock=number % 2 == 1) for number in range(_RECONCILED)]
        world.order("switch", name="deliver_nothing", value=False)
        say(f"{_PARALLEL} requests at once when the token expires")
        refreshes = _refreshes(world, person)
        person.close()
    say(f"look-ups among {_SESSIONS:,} sessions")
    looked = asyncio.run(_lookups())
    return {
        "logout_push_p99_ms": quantiles(pushed, n=100)[98],
        "logout_reconcile_p99_ms": quantiles(reconciled, n=100)[98],
        "refreshes_for_200_parallel": refreshes,
        "session_lookup_p50_us": looked["p50_us"],
        "login": {"push_p50_ms": median(pushed), "reconcile_p50_ms": median(reconciled), **looked},
    }


def _ending(world: DemoWorld, person: Person, *, lock: bool) -> float:
    """Milliseconds from the end of a login at the provider to the first request that is refused."""
    url = f"https://{DIRECTORY}:{world.port}/people"
    answer = _signed_in(world, person)
    if answer.status_code != _OK:
        answer = _signed_in(world, person)  # the half minute of the one-time code was over
    if answer.status_code != _OK:
        raise BenchFailed(f"bob could not sign in: {answer.status_code} {answer.headers.get('x-gateway-reason', '')}")
    started = time.perf_counter()
    if lock:
        world.order("lock", user="bob")
    else:
        world.end_session("bob")
    while person.ask(url, headers={"accept": "application/json"}).status_code == _OK:
        if time.perf_counter() - started > _PATIENCE_S:
            raise BenchFailed("a login that ended at the provider lives on here")
    took = (time.perf_counter() - started) * 1000
    if lock:
        world.order("unlock", user="bob")
    return took


def _signed_in(world: DemoWorld, person: Person) -> httpx.Response:
    person.jars.clear()
    code = world.order("code", user="bob")["code"]
    return person.sign_in(f"https://{DIRECTORY}:{world.port}/people", "bob", code=code)


def _refreshes(world: DemoWorld, person: Person) -> int:
    """How often the gateway asks for new tokens when so many requests come at the moment they expire."""
    _shorten(world)
    _signed_in(world, person)
    signed_in = time.monotonic()
    cookies = "; ".join(f"{name}={value}" for name, value in person.jars[DIRECTORY].items())
    ready = threading.Barrier(_THREADS)
    before = world.asked("token")

    def many(_: int) -> list[int]:
        browser = client.Browser(world.port, DIRECTORY, world.pki.root, _device_of(world))
        try:
            browser.ask("/nothing", headers={"accept": "application/json"})  # a connection, without the cookie
            time.sleep(max(0.0, signed_in + _LIFE_S + 0.5 - time.monotonic()))
            ready.wait()
            sent = {"accept": "application/json", "cookie": cookies}
            return [browser.ask("/people", headers=sent).status_code for _ in range(_PARALLEL // _THREADS)]
        finally:
            browser.close()

    with ThreadPoolExecutor(_THREADS) as pool:
        statuses = [status for found in pool.map(many, range(_THREADS)) for status in found]
    if statuses.count(_OK) != _PARALLEL:
        raise BenchFailed(f"only {statuses.count(_OK)} of {_PARALLEL} requests went on over the refresh")
    return world.asked("token") - before


def _device_of(world: DemoWorld) -> client.DeviceFiles:
    return client.DeviceFiles(world.folder / "bench" / "device.pem", world.folder / "bench" / "device.key")


def _shorten(world: DemoWorld) -> None:
    owner = (world.folder / "secrets" / "api").read_text(encoding="ascii")
    lives = {"accessTokenLifetime": f"{_LIFE_S}s", "idTokenLifetime": "3600s"}
    lives |= {"refreshTokenIdleExpiration": "86400s", "refreshTokenExpiration": "86400s"}
    answer = httpx.put(
        f"{world.provider_url}/admin/v1/settings/oidc",
        json=lives,
        headers={"authorization": f"Bearer {owner}"},
        trust_env=False,
    )
    if not answer.is_success:
        raise BenchFailed(f"the provider's token life could not be set: {answer.status_code}")


class _InOneTransaction(SqliteStore):
    """A store being filled: everything in one transaction, so that no write waits for the disk."""

    async def write(self, work: Callable[[Any], Any]) -> Any:
        """What `work` answers; durable when the store is closed."""
        if not self._writer.in_transaction:
            self._writer.execute("BEGIN IMMEDIATE")
        return work(self._writer)

    def one(self, statement: str, values: Any = ()) -> Any:
        """The first row, of what was just written too."""
        return self._writer.execute(statement, values).fetchone()

    async def close(self) -> None:
        """Write it all."""
        self._writer.commit()
        await super().close()


async def _lookups() -> dict[str, Any]:
    """A cookie to its login session, each step as the data path takes it."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        folder = Path(name)
        key = read_or_make_master_key(folder / "key")
        filling = _InOneTransaction(folder / "store", key)
        values = await _filled(*_parts(filling))
        await filling.close()
        store = SqliteStore(folder / "store", key)
        try:
            cookies, logins = _parts(store)
            gc.collect()
            gc.freeze()
            before = _rss_mib()
            times = []
            for _ in range(_LOOKUPS):
                value = secrets.choice(values)
                started = time.perf_counter_ns()
                browser = await cookies.find(value)
                login = None if browser is None else await logins.live(browser.login_id)
                times.append((time.perf_counter_ns() - started) / 1000)
                if not isinstance(login, LoginSession):
                    raise BenchFailed("a session was not found")
            return {
                "p50_us": median(times),
                "p99_us": quantiles(times, n=100)[98],
                "sessions": len(values),
                "rss_growth_mib": _rss_mib() - before,
                "store_bytes_per_session": round((folder / "store").stat().st_size / len(values)),
            }
        finally:
            gc.unfreeze()
            await store.close()


def _parts(store: SqliteStore) -> tuple[BrowserSessions, LoginSessions]:
    documents = SqliteDocuments(store)
    logins = LoginSessions(documents, store, time.time, _random, idle_s=86_400, absolute_s=86_400)
    return BrowserSessions(documents, time.time, _random), logins


async def _filled(cookies: BrowserSessions, logins: LoginSessions) -> list[str]:
    """The cookies of so many people."""
    values = []
    for number in range(_SESSIONS):
        identity = Identity(
            issuer="https://id.example.com",
            subject=f"user{number}",
            kind="session",
            session_hint="",
            expires_at=time.time() + 86_400,
            name=f"Person {number}",
            email=f"person{number}@example.com",
            department="people",
            roles=(Role("staff", "223281939119866113"),),
            amr=("pwd", "otp", "mfa"),
            auth_time=time.time(),
        )
        tokens = Tokens("t" * 120, None, None, None)
        login = await logins.create(identity, f"sid{number}", tokens, device_id="laptop", agent="Firefox")
        if not isinstance(login, LoginSession):
            raise BenchFailed("a session could not be made")
        values.append(await cookies.open(login, "wiki.example.com", None))
    return values


def _random() -> str:
    return secrets.token_urlsafe(32)


def _rss_mib() -> float:
    text = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * resource.getpagesize() / (1 << 20)
