"""`gateway user lock` and `unlock`, on a real store and a Zitadel on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from typer.testing import Result

from gateway.config import load
from gateway.core.factors import FactorOwner
from gateway.core.ports.stores import SessionRecord
from gateway.identity.factors.store import EnrolledFactor, Factors, PendingChallenge
from gateway.identity.reactions import COLLECTION
from gateway.wiring import open_state
from plugins.factors import builtin
from tests.support.cli_world import gateway
from tests.support.zitadel_world import TOKEN, FakeZitadel, zitadel

WHY = ("--why", "stolen laptop")
CONFIG = """\
tls: [{certificate: pki/server.pem, key: pki/server.key}]
issuers:
  - issuer: {issuer}
    audiences: [a]
    {api}
policy: {path: policies}
services:
  app: {host: app.localhost, upstream: "http://127.0.0.1:1", introspect: never}
"""


class Site:
    """A folder of `gateway init` whose issuer is the Zitadel on loopback, and one session of Ann."""

    def __init__(self, folder: Path, fake: FakeZitadel) -> None:
        self.folder, self.fake = folder, fake
        self.file = folder / "gateway.yaml"
        self.token = folder / "api"
        self.token.write_text(TOKEN)
        self.token.chmod(0o600)
        self.write("zitadel: {token: {file: api}}")
        for action in ("lock", "unlock"):
            fake.answers["POST", f"/v2/users/ann/{action}"] = 200, {}
        asyncio.run(self._seed())

    def write(self, api: str) -> None:
        self.file.write_text(CONFIG.replace("{issuer}", self.fake.url).replace("{api}", api))

    async def _seed(self) -> None:
        store = (await open_state(load(self.file, environ={}))).store
        now = time.time()
        for name in ("ann", "bob"):
            await store.put_session(
                SessionRecord(f"session-of-{name}", self.fake.url, name, f"{name}@corp", "", now, now, now + 600)
            )
        await store.close()

    def run(self, *arguments: object) -> Result:
        return gateway("user", *arguments, "-c", self.file)

    def running(self) -> set[str]:
        listed = json.loads(gateway("session", "list", "--json", "-c", self.file).stdout)
        return {entry["subject"] for entry in listed if entry["revoked_at"] is None}

    def waiting(self) -> int:
        async def count() -> int:
            state = await open_state(load(self.file, environ={}))
            try:
                return len(await state.documents.list(COLLECTION, self.fake.url, time.time()))
            finally:
                await state.store.close()

        return asyncio.run(count())

    def events(self) -> list[dict[str, Any]]:
        rows = (self.folder / "state/decisions.jsonl").read_text().splitlines()
        return [json.loads(row) for row in rows]


@pytest.fixture
def here(site: Path) -> Iterator[Site]:
    with zitadel() as fake:
        yield Site(site, fake)


def test_a_lock_ends_the_persons_sessions_here_and_locks_the_account_there(here: Site) -> None:
    done = here.run("lock", here.fake.url, "ann", *WHY)
    assert done.exit_code == 0, done.output
    assert done.stdout == "1 session ended here\nthe account ann is locked\n"
    assert here.running() == {"bob"}
    assert [asked.path for asked in here.fake.asked] == ["/v2/users/ann/lock"]
    (event,) = here.events()
    assert (event["operator"], event["subject"], event["why"]) == ("user_lock", "ann", "stolen laptop")
    assert (event["account"], event["sessions_ended"]) == ("locked", 1)


def test_a_zitadel_that_does_not_answer_keeps_no_session_alive_and_the_lock_waits(here: Site) -> None:
    here.fake.down = True
    done = here.run("lock", here.fake.url, "ann", *WHY, "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert (said["account"], said["sessions_ended"]) == ("pending", 1)
    assert "unreachable" in said["trouble"]
    assert "goes on trying" in done.stderr
    assert here.running() == {"bob"}
    assert here.waiting() == 1
    assert here.events()[0]["account"] == "pending"


def test_an_unlock_wants_no_lock_any_more(here: Site) -> None:
    here.fake.down = True
    here.run("lock", here.fake.url, "ann", *WHY)
    assert here.run("unlock", here.fake.url, "ann", *WHY).exit_code == 1
    assert here.waiting() == 0, "a gateway that runs must not lock it again"
    here.fake.down = False
    done = here.run("unlock", here.fake.url, "ann", *WHY)
    assert (done.exit_code, done.stdout) == (0, "the account ann is unlocked\n")
    assert [event["account"] for event in here.events()] == ["pending", "failed", "unlocked"]


def test_without_a_way_to_zitadel_the_sessions_end_all_the_same(here: Site) -> None:
    for without_file in (True, False):
        here.token.unlink() if without_file else here.write("")
        done = here.run("lock", here.fake.url, "ann", *WHY)
        assert done.exit_code == 1
        assert "Zitadel did not do it" in done.stderr
        assert TOKEN not in done.output
        assert here.running() == {"bob"}
    assert here.run("unlock", here.fake.url, "ann", *WHY).exit_code == 1


def test_an_account_that_is_gone_is_reported(here: Site) -> None:
    here.fake.answers["POST", "/v2/users/ann/unlock"] = 404, {"code": 5, "message": "User could not be found"}
    done = here.run("unlock", here.fake.url, "ann", *WHY)
    assert done.exit_code == 1
    assert "could not be found" in done.stderr


def test_an_unknown_issuer_and_a_missing_reason_do_nothing(here: Site) -> None:
    unknown = here.run("lock", "https://elsewhere.example", "ann", *WHY)
    assert unknown.exit_code == 1
    assert "There is no issuer" in unknown.stderr
    assert here.run("lock", here.fake.url, "ann").exit_code == 2
    assert here.running() == {"ann", "bob"}


def test_what_cannot_be_recorded_is_done_and_said(here: Site) -> None:
    here.file.write_text(here.file.read_text() + "record: {file: /dev/full}\n")
    done = here.run("lock", here.fake.url, "ann", *WHY)
    assert done.exit_code == 1
    assert "the account ann is locked" in done.stdout
    assert "no line" in done.stderr
    assert here.running() == {"bob"}


def test_somebody_who_lost_their_second_factors_enrols_anew(here: Site) -> None:
    async def enrol() -> None:
        state = await open_state(load(here.file, environ={}))
        factors = Factors(state.documents, builtin("corp", "gateway.corp", ["https://gateway.corp"]), time.time)
        owner = FactorOwner(here.fake.url, "ann", "ann@corp")
        begun = await factors.begin_enrolment(owner, "totp")
        assert isinstance(begun, PendingChallenge)
        code = pyotp.TOTP(str(begun.show["secret"]).replace(" ", "")).now()
        assert isinstance(await factors.finish_enrolment(owner, begun.id, {"code": code}), EnrolledFactor)
        await state.store.close()

    async def enrolled() -> int:
        state = await open_state(load(here.file, environ={}))
        found = await Factors(state.documents, {}, time.time).enrolled(FactorOwner(here.fake.url, "ann"))
        await state.store.close()
        return len(found)

    asyncio.run(enrol())
    assert asyncio.run(enrolled()) == 1
    done = here.run("reset-factors", here.fake.url, "ann", "--why", "phone lost")
    assert (done.exit_code, done.stdout) == (0, "1 session ended here\nthe second factors of ann are removed\n")
    assert asyncio.run(enrolled()) == 0
    assert here.running() == {"bob"}
    (event,) = here.events()
    assert (event["operator"], event["why"], event["account"]) == ("user_reset_factors", "phone lost", "reset")
    again = here.run("reset-factors", here.fake.url, "ann", "--why", "phone lost")
    assert (again.exit_code, again.stdout) == (0, "0 sessions ended here\nthe second factors of ann were none\n")
