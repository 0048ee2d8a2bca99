from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from typing import Any

import pytest

from gateway.adapters.http import HttpxClient
from gateway.core.reasons import Refusal
from gateway.identity.zitadel.access import AccessToken
from gateway.identity.zitadel.api import Zitadel
from gateway.identity.zitadel.webhooks import EventActor, HookReceiver
from tests.support.zitadel_world import NOW, TOKEN, Clock, Ender, FakeZitadel, Memory, b64, moment, zitadel

ISSUER = "https://id.example.com"
KEY, NEXT = b"key-of-the-target", b"key-that-follows"


def body(kind: str, name: str = "42", of: str = "user", sequence: int = 7, payload: Any = None) -> bytes:
    document = {
        "aggregateID": name,
        "aggregateType": of,
        "resourceOwner": "1",
        "instanceID": "2",
        "version": "v2",
        "sequence": sequence,
        "event_type": kind,
        "created_at": moment(NOW),
        "userID": "99",
        "event_payload": payload,
    }
    return json.dumps(document).encode()


def mac(key: bytes, raw: bytes, at: float = NOW) -> str:
    return hmac.new(key, f"{int(at)}.".encode() + raw, sha256).hexdigest()


def signed(raw: bytes, key: bytes = KEY, at: float = NOW) -> list[str]:
    return [f"t={int(at)},v1={mac(key, raw, at)}"]


class World:
    def __init__(self, api: Zitadel | None = None) -> None:
        self.clock, self.ender, self.memory = Clock(), Ender(), Memory()
        self.actor = EventActor(ISSUER, self.ender, self.memory, self.clock, api)
        self.receiver = HookReceiver([KEY, NEXT], self.actor, self.clock)

    async def refused(self, signatures: list[str], raw: bytes) -> str:
        outcome = await self.receiver.receive(signatures, raw)
        assert isinstance(outcome, Refusal)
        assert self.ender.ended == []
        return outcome.reason


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server() -> Iterator[FakeZitadel]:
    with zitadel() as fake:
        yield fake


@pytest.fixture
async def asking(server: FakeZitadel) -> AsyncIterator[World]:
    http = HttpxClient(timeout_s=3)
    yield World(Zitadel(ISSUER, http, AccessToken(TOKEN), server.url))
    await http.close()


@pytest.mark.parametrize(
    "kind",
    [
        "user.locked",
        "user.deactivated",
        "user.removed",
        "user.human.signed.out",
        "user.human.password.changed",
        "user.human.mfa.otp.removed",
        "user.human.mfa.u2f.token.removed",
        "user.human.passwordless.token.removed",
    ],
)
async def test_what_happens_to_a_user_ends_all_they_have(world: World, kind: str) -> None:
    raw = body(kind)
    assert await world.receiver.receive(signed(raw), raw) == 1
    assert world.ender.ended[0][:2] == (None, "42")


async def test_the_end_of_a_login_session_ends_that_one(world: World) -> None:
    raw = body("session.terminated", "s1", "session")
    assert await world.receiver.receive(signed(raw), raw) == 1
    assert world.ender.ended[0][:2] == ("s1", None)


@pytest.mark.parametrize("kind", ["user.unlocked", "user.human.added", "user.grant.reactivated", "project.added"])
async def test_what_takes_nothing_away_ends_nothing(world: World, kind: str) -> None:
    raw = body(kind)
    assert await world.receiver.receive(signed(raw), raw) == 0
    assert world.ender.ended == []


@pytest.mark.parametrize("form", [lambda value: value, b64])
async def test_both_forms_of_a_payload_are_read(world: World, form: Any) -> None:
    added = body("user.grant.added", "g1", "usergrant", 1, form({"userId": "42", "roleKeys": ["staff"]}))
    assert await world.receiver.receive(signed(added), added) == 0
    removed = body("user.grant.removed", "g1", "usergrant", 2)
    assert await world.receiver.receive(signed(removed), removed) == 1
    assert world.ender.ended == [(None, "42", "roles were removed")]


async def test_a_changed_grant_ends_the_sessions_with_the_old_roles(world: World) -> None:
    raw = body("user.grant.changed", "g1", "usergrant", 2, {"userId": "42", "roleKeys": []})
    assert await world.receiver.receive(signed(raw), raw) == 1
    assert world.ender.who == ["42"]


async def test_a_grant_that_was_never_seen_is_looked_up(server: FakeZitadel, asking: World) -> None:
    server.event("user.grant.added", "usergrant", "g1", 1, NOW - 90_000, {"userId": "42"})
    raw = body("user.grant.removed", "g1", "usergrant", 2)
    assert await asking.receiver.receive(signed(raw), raw) == 1
    assert asking.ender.who == ["42"]


async def test_a_grant_nobody_knows_ends_nothing_and_is_not_asked_about_again(
    server: FakeZitadel, asking: World
) -> None:
    raw = body("user.grant.removed", "g9", "usergrant", 2)
    assert await asking.receiver.receive(signed(raw), raw) == 0
    assert await asking.receiver.receive(signed(raw), raw) == 0
    assert len(server.asked) == 1


async def test_a_grant_that_cannot_be_looked_up_now_may_come_again(server: FakeZitadel, asking: World) -> None:
    server.down = True
    raw = body("user.grant.removed", "g1", "usergrant", 2)
    assert await asking.refused(signed(raw), raw) == "issuer_unavailable"
    server.down = False
    server.event("user.grant.added", "usergrant", "g1", 1, NOW - 90_000, {"userId": "42"})
    assert await asking.receiver.receive(signed(raw), raw) == 1


async def test_without_an_api_an_unseen_grant_is_left_to_reconciling(world: World) -> None:
    raw = body("user.grant.removed", "g1", "usergrant", 2)
    assert await world.refused(signed(raw), raw) == "issuer_unavailable"


async def test_a_duplicate_delivery_ends_nothing_twice(world: World) -> None:
    raw = body("user.locked")
    assert await world.receiver.receive(signed(raw), raw) == 1
    assert await world.receiver.receive(signed(raw), raw) == 0
    assert len(world.ender.ended) == 1


async def test_the_order_of_deliveries_does_not_matter(world: World) -> None:
    for kind, sequence in (("user.unlocked", 9), ("user.locked", 8), ("user.human.password.changed", 7)):
        raw = body(kind, sequence=sequence)
        assert not isinstance(await world.receiver.receive(signed(raw), raw), Refusal)
    assert world.ender.who == ["42", "42"]


async def test_any_of_several_signatures_and_keys_will_do(world: World) -> None:
    raw = body("user.locked")
    header = f"t={int(NOW)},v1={'0' * 64},v1={mac(NEXT, raw)}"
    assert await world.receiver.receive([header], raw) == 1


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1",
        f"v1={'0' * 64}",
        f"t=,v1={'0' * 64}",
        f"t=-1,v1={'0' * 64}",
        f"t=1,t=2,v1={'0' * 64}",
        "t=1,v1=zz",
        "t=1,v1=" + "0" * 63,
        f"t=1{',v1=' + '0' * 64}" * 20,
        f"t=1,v2={'0' * 64}",
    ],
)
async def test_a_signature_header_that_cannot_be_read_is_refused(world: World, header: str) -> None:
    assert await world.refused([header], body("user.locked")) == "token_malformed"


async def test_no_header_and_two_headers_are_refused(world: World) -> None:
    raw = body("user.locked")
    assert await world.refused([], raw) == "token_malformed"
    assert await world.refused(signed(raw) * 2, raw) == "token_malformed"


async def test_a_wrong_signature_is_refused(world: World) -> None:
    raw = body("user.locked")
    assert await world.refused(signed(raw, b"another key"), raw) == "token_signature_invalid"
    assert await world.refused(signed(raw), raw + b" ") == "token_signature_invalid"
    time_changed = signed(raw)[0].replace(f"t={int(NOW)}", f"t={int(NOW) + 1}")
    assert await world.refused([time_changed], raw) == "token_signature_invalid"


@pytest.mark.parametrize("off", [-301, 301])
async def test_an_old_or_future_timestamp_is_refused(world: World, off: int) -> None:
    raw = body("user.locked")
    assert await world.refused(signed(raw, at=NOW + off), raw) == "token_expired"


@pytest.mark.parametrize("off", [-300, 0, 300])
async def test_five_minutes_are_tolerated(world: World, off: int) -> None:
    raw = body("user.locked")
    assert await world.receiver.receive(signed(raw, at=NOW + off), raw) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        body("user.locked", name=""),
        body("user.locked", payload="not base64"),
        body("user.locked", payload="W10="),
        body("user.locked", payload=7),
        body("user.locked").replace(b'"sequence": 7', b'"sequence": true'),
        body("user.locked").replace(b'"sequence": 7', b'"sequence": "x"'),
        body("user.locked").replace(b"2027", b"20x7"),
        body("user.locked").replace(b'"aggregateID": "42"', b'"aggregateID": "42", "aggregateID": "43"'),
    ],
)
async def test_a_signed_body_that_is_no_event_is_refused(world: World, raw: bytes) -> None:
    assert await world.refused(signed(raw), raw) == "malformed_request"


async def test_a_body_that_is_too_large_is_not_looked_at(world: World) -> None:
    raw = b" " * 70_000
    assert await world.refused(signed(raw), raw) == "body_too_large"


async def test_a_store_that_is_down_is_said_and_the_event_may_come_again(world: World) -> None:
    raw = body("user.locked")
    world.memory.down = True
    assert await world.refused(signed(raw), raw) == "store_down"
    world.memory.down = False
    world.ender.down = 1
    assert await world.refused(signed(raw), raw) == "store_down"
    assert await world.receiver.receive(signed(raw), raw) == 1


def test_a_receiver_needs_a_key_and_shows_none(world: World) -> None:
    assert "key-of" not in repr(world.receiver)
    for keys in ([], [b""]):
        with pytest.raises(ValueError, match="signing key"):
            HookReceiver(keys, world.actor, world.clock)
