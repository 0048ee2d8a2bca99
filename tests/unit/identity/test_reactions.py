"""What policy wants done beside a refusal, over a real store."""

import json

import pytest

from gateway.core.ports.stores import SessionRecord
from gateway.core.subject import Session
from gateway.identity.reactions import COLLECTION, Reactions
from gateway.identity.ssf.events import EventSubject
from gateway.identity.zitadel.access import ApiFailure
from tests.support.login_world import ISSUER, LAPTOP, WIKI, Browser, World


class Locks:
    def __init__(self):
        self.asked, self.failure = [], None

    async def lock(self, user_id):
        self.asked.append(user_id)
        return self.failure


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def locks():
    return Locks()


@pytest.fixture
def reactions(world, locks):
    return Reactions(world.logins, world.store, world.documents, {ISSUER: locks}, world.clock)


async def signed_in(world, count=2):
    for _ in range(count):
        await world.sign_in(Browser(LAPTOP), f"https://{WIKI}/")
    found = await world.logins.of_subject(ISSUER, "ada")
    assert len(found) == count
    return found


def session(login):
    return Session(login.id, login.created_at)


async def test_one_session_ends_and_the_others_stay(world, reactions):
    first, second = await signed_in(world)
    done = await reactions.react(["revoke_session"], first.identity, session(first), "policy")
    assert done == ["revoke_session"]
    assert [login.id for login in await world.logins.of_subject(ISSUER, "ada")] == [second.id]
    assert (await world.logins.live(first.id)).reason == "session_revoked"


async def test_all_of_a_person_end(world, reactions, locks):
    first, _ = await signed_in(world)
    assert await reactions.react(["revoke_subject"], first.identity, session(first), "policy") == ["revoke_subject"]
    assert await world.logins.of_subject(ISSUER, "ada") == []
    assert locks.asked == []


async def test_whoever_follows_is_told_of_the_risk_once_an_hour(world, locks):
    told = []

    async def tell(event):
        told.append((event.kind, event.about, event.details["current_level"], event.details["risk_reason"]))

    reactions = Reactions(world.logins, world.store, world.documents, {ISSUER: locks}, world.clock, tell)
    first, second = await signed_in(world)
    await reactions.react(["reverify"], first.identity, session(first), "by policy: account_doubtful")
    await reactions.react(["revoke_session"], second.identity, session(second), "by policy: session_stolen")
    assert told == [("risk-level-change", EventSubject(ISSUER, "ada"), "HIGH", "by policy: account_doubtful")]
    world.clock.now += 3_601
    await reactions.react(["reverify"], first.identity, session(first), "by policy: account_doubtful")
    assert len(told) == 2


async def test_a_lock_ends_everything_here_first_and_asks_the_issuer(world, reactions, locks):
    first, _ = await signed_in(world)
    done = await reactions.react(["lock_account"], first.identity, session(first), "policy")
    assert done == ["revoke_subject", "lock_account"]
    assert await world.logins.of_subject(ISSUER, "ada") == []
    assert locks.asked == ["ada"]
    assert await world.documents.list(COLLECTION, ISSUER, world.clock()) == []


async def test_a_lock_that_the_issuer_did_not_take_waits_and_is_tried_again(world, reactions, locks):
    first, _ = await signed_in(world)
    locks.failure = ApiFailure("unreachable")
    done = await reactions.react(["lock_account"], first.identity, session(first), "policy")
    assert done == ["revoke_subject", "lock_pending"]
    (waiting,) = await world.documents.list(COLLECTION, ISSUER, world.clock())
    assert json.loads(waiting.value) == "ada"
    locks.failure = None
    await reactions.retry()
    assert locks.asked == ["ada", "ada"]
    assert await world.documents.list(COLLECTION, ISSUER, world.clock()) == []


async def test_a_bearer_session_is_revoked_in_the_list_of_sessions(world, reactions):
    (login,) = await signed_in(world, 1)
    now = world.clock()
    record = SessionRecord("b_one", ISSUER, "ada", "Ada", "", now, now, now + 60)
    await world.store.put_session(record)
    assert await reactions.react(["revoke_session"], login.identity, Session("b_one", now), "policy") == [
        "revoke_session"
    ]
    assert (await world.store.session("b_one")).revoked_why == "policy"
    assert await world.logins.live(login.id) == login


async def test_nobody_is_nothing_to_react_to(reactions, locks):
    assert await reactions.react(["revoke_subject", "lock_account"], None, None, "policy") == []
    assert locks.asked == []
