"""State that an earlier version wrote is served by this one: a SQLite file and a Redis of commit 8aa16ef."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyotp
import pytest

from gateway.adapters.redis.documents import RedisDocuments
from gateway.adapters.redis.store import RedisStore
from gateway.adapters.sealing import read_or_make_master_key
from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.config import StateStore
from gateway.core.factors import FactorOwner
from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import IssuedCertificate, Store
from gateway.core.reasons import Refusal
from gateway.core.subject import Session
from gateway.identity.factors.lockout import Lockout
from gateway.identity.factors.store import ATTEMPTS, FACTORS, Factors, PendingChallenge, Proof
from gateway.identity.reactions import Reactions
from gateway.identity.ssf.receiver import RISKS
from gateway.risk.memory import RiskMemory
from gateway.wiring.resources import MASTER_KEY, STORE
from plugins.factors import builtin
from tests.support.issuer_world import Clock
from tests.support.login_world import HOST, ISSUER, LAPTOP, WIKI, Browser, Worker, World, origin
from tests.support.redis_server import RedisProcess, needs_redis, running

VECTORS = Path(__file__).parents[1] / "vectors" / "old_state"
WRITTEN_AT, DAY_S = 1_790_000_000.0, 86_400.0
MASTER = bytes(range(32))
ADA = FactorOwner(ISSUER, "ada", "ada@example.com")


def drawn(number: int) -> str:
    """The n-th random text of the installation."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"old-state/{number}".encode()).digest()).rstrip(b"=").decode()


class Installation(World):
    """The old installation's state, with one worker of the present code before it."""

    def __init__(self, folder: Path, store: Store, documents: Documents, clock: Clock, facts: dict[str, Any]) -> None:
        super().__init__(folder)
        self.unused, self.facts = self.store, facts
        self.clock = self.provider.clock = clock
        self.store, self.documents = store, documents  # type: ignore[assignment]
        Worker.__init__(self, self)
        self.factors = Factors(documents, builtin("Example", HOST, [origin(HOST)]), clock)

    def browser(self, name: str) -> Browser:
        jars = {
            host: {cookie: drawn(number) for cookie, number in jar.items()}
            for host, jar in self.facts["jars"][name].items()
        }
        return Browser(None if name == "lost" else LAPTOP, jars)

    async def close_worker(self) -> None:
        await Worker.close(self)
        await self.unused.close()


def restore_sqlite(folder: Path) -> None:
    """The state folder as the old version left it."""
    folder.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(folder / STORE)) as db:
        db.executescript((VECTORS / "state.sql").read_text())
    (folder / MASTER_KEY).touch(0o600)
    (folder / MASTER_KEY).write_bytes(MASTER)


def restore_redis(server: RedisProcess) -> None:
    """The keys as the old version left them, without their times to live."""
    for key, (kind, value) in json.loads((VECTORS / "state.redis.json").read_text()).items():
        if kind == "string":
            send(server, b"SET", unhex(key), unhex(value))
        elif kind == "hash":
            send(server, b"HSET", unhex(key), *(unhex(text) for pair in value.items() for text in pair))
        elif kind == "zset":
            members = [(repr(score).encode(), unhex(member)) for member, score in value]
            send(server, b"ZADD", unhex(key), *(text for pair in members for text in pair))
        else:
            assert kind == "stream"
            for number, row in value:
                send(
                    server,
                    b"XADD",
                    unhex(key),
                    number.encode(),
                    *(unhex(text) for pair in row.items() for text in pair),
                )


def send(server: RedisProcess, *command: bytes) -> None:
    """One command; values are any bytes, so redis-cli does not do."""
    message = b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in command)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wire:
        wire.sendall(message)
        assert wire.recv(4096)[:1] in b":+$"


unhex = bytes.fromhex


@contextlib.asynccontextmanager
async def sqlite_state(folder: Path, clock: Clock) -> AsyncIterator[tuple[Store, Documents]]:
    restore_sqlite(folder / "state")
    store = SqliteStore(folder / "state" / STORE, read_or_make_master_key(folder / "state" / MASTER_KEY), clock)
    yield store, SqliteDocuments(store)
    await store.close()


@contextlib.asynccontextmanager
async def redis_state(folder: Path, clock: Clock) -> AsyncIterator[tuple[Store, Documents]]:
    with running(folder / "redis") as server:
        restore_redis(server)
        settings = StateStore(kind="redis", address=server.address, timeout_ms=5_000)
        store = RedisStore(settings, MASTER, folder / "anchor", clock)
        await store.open()
        yield store, RedisDocuments(store)
        await store.close()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
async def old(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Installation]:
    facts = json.loads((VECTORS / "facts.json").read_text())[request.param]
    clock = Clock()
    clock.now = facts["now"] + 1
    state = {"sqlite": sqlite_state, "redis": redis_state}[request.param]
    async with state(tmp_path, clock) as (store, documents):
        (tmp_path / "unused").mkdir()
        world = Installation(tmp_path / "unused", store, documents, clock, facts)
        yield world
        await world.close_worker()


async def test_a_person_who_is_signed_in_stays_signed_in(old: Installation) -> None:
    session = await old.ask(old.browser("ada"))
    assert isinstance(session, Session)
    assert session.id == "l_" + drawn(old.facts["session"])
    assert session.bound_by == ("device",)
    (login,) = await old.logins.of_subject(ISSUER, "ada")
    assert (login.identity.email, login.device_id) == ("ada@example.com", LAPTOP.id)


async def test_a_session_cookie_still_ends_without_its_device(old: Installation) -> None:
    thief = old.browser("ada")
    thief.device = None
    assert await old.ask(thief) == "binding_mismatch"


async def test_what_was_ended_stays_ended(old: Installation) -> None:
    assert await old.ask(old.browser("lost")) == "session_revoked"
    ended = await old.store.session("l_" + drawn(old.facts["ended"]))
    bearer = await old.store.session("b_" + "R" * 32)
    assert ended is not None
    assert ended.revoked_why == "lost"
    assert bearer is not None
    assert (bearer.subject, bearer.revoked_at, bearer.revoked_why) == ("carol", WRITTEN_AT + 1, "left the company")


async def test_the_session_is_found_and_ended_by_the_issuers_name_for_it(old: Installation) -> None:
    assert await old.logins.end_login_sessions(ISSUER, sid="sid-1", why="signed out elsewhere") == 1
    assert await old.ask(old.browser("ada")) == "session_revoked"


async def test_the_sessions_tokens_are_renewed(old: Installation) -> None:
    tokens = await old.logins.tokens("l_" + drawn(old.facts["session"]))
    assert tokens is not None
    assert tokens[0].refresh_token is not None
    old.provider.refreshable[tokens[0].refresh_token] = {"auth_time": str(int(WRITTEN_AT))}
    old.clock.pass_(920)
    assert isinstance(await old.ask(old.browser("ada")), Session)
    assert old.provider.asked["refresh_token"] == 1


async def test_devices_are_known_revoked_and_enrolled_as_before(old: Installation) -> None:
    laptop, phone, tablet = [await old.store.device(name) for name in ("laptop", "phone", "tablet")]
    assert laptop is not None
    assert (laptop.status, laptop.owner, laptop.enrolled_at) == ("active", "ada", WRITTEN_AT - DAY_S + 60)
    assert laptop.posture == {
        "disk_encrypted": True,
        "reported_at": WRITTEN_AT - 5,
        "compliant": False,
        "compliance_by": "mdm",
        "compliance_at": WRITTEN_AT - 30,
    }
    assert phone is not None
    assert (phone.status, phone.revoked_at, phone.revoked_why) == ("revoked", WRITTEN_AT - 100, "stolen")
    assert tablet is not None
    assert tablet.status == "pending"
    certificate = IssuedCertificate("0b02", "phone", WRITTEN_AT - DAY_S, WRITTEN_AT + DAY_S)
    assert await old.store.revoked_certificates(old.clock()) == [(certificate, WRITTEN_AT - 100)]
    token = hashlib.sha256(b"old-state/enrolment").hexdigest()
    assert await old.store.take_enrolment(token, old.clock()) == "tablet"
    assert await old.store.take_enrolment(token, old.clock()) is None


async def test_a_second_factor_is_verified(old: Installation) -> None:
    (factor,) = await old.factors.enrolled(ADA)
    assert (factor.kind, factor.label) == ("totp", "Phone app")
    document = await old.documents.get(FACTORS, ADA.handle.hex(), old.clock())
    assert document is not None
    old.clock.pass_(60)
    code = pyotp.TOTP(json.loads(document.value)[0]["state"]["secret"]).at(int(old.clock()))
    challenge = await old.factors.begin_challenge(ADA, "totp")
    assert isinstance(challenge, PendingChallenge)
    proof = await old.factors.finish_challenge(ADA, challenge.id, {"code": code})
    assert isinstance(proof, Proof)
    assert proof.factor_id == factor.id


async def test_a_lock_after_failures_goes_on(old: Installation) -> None:
    lockout = Lockout(old.documents, ATTEMPTS, "factor_locked", old.clock)
    locked = await lockout.count("somebody|totp", 5)
    assert isinstance(locked, Refusal)
    assert locked.reason == "factor_locked"


async def test_a_pending_request_goes_on_after_the_sign_in(old: Installation) -> None:
    pending = await old.held.look(drawn(old.facts["pending_request"]))
    assert pending is not None
    assert (pending.host, pending.method, pending.target) == (WIKI, "GET", "/report?year=2026")


async def test_risk_and_what_others_said_of_it_is_remembered(old: Installation) -> None:
    profile = await RiskMemory(old.documents, old.clock).read("subject", "profile-of-ada")
    assert profile.of("network_novelty") == {"seen": ["192.0.2.0/24"]}
    external = await old.documents.get(RISKS, f"{len(ISSUER)}|{ISSUER}|ada", old.clock())
    assert external is not None
    assert json.loads(external.value)["mdm"]["level"] == "high"


async def test_an_account_lock_that_failed_is_tried_again(old: Installation) -> None:
    locked: list[str] = []

    class Lock:
        async def lock(self, user_id: str) -> None:
            locked.append(user_id)

        async def unlock(self, user_id: str) -> None:
            raise AssertionError(user_id)

    reactions = Reactions(old.logins, old.store, old.documents, {ISSUER: Lock()}, old.clock)
    await reactions.retry()
    await reactions.retry()
    assert locked == ["dan"]


async def test_what_was_used_once_is_not_used_again_and_secrets_open(old: Installation) -> None:
    assert await old.store.first_use("old-state/jti", old.clock(), WRITTEN_AT + DAY_S) is False
    assert await old.store.secrets("old-state") == [("name", WRITTEN_AT, b"a value that every worker shares")]


async def test_changes_are_followed_from_where_a_worker_stopped(old: Installation) -> None:
    last = old.facts["last_change"]
    assert await old.store.latest() == last
    (change,) = await old.store.changes(last - 1) or ()
    assert (change.kind, change.key) == ("subject", f"{len(ISSUER)}|{ISSUER}|ada")
    await old.store.revoke_session("b_" + "N" * 32, old.clock(), "now")
    (change,) = await old.store.changes(last) or ()
    assert (change.seq, change.kind) == (last + 1, "session")
