from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.ports.stores import StoreDown
from gateway.core.subject import Device, Identity, Role, Session
from gateway.pipeline.assertion import PURPOSE, Asserter
from tests.support.clock import NOW
from tests.support.cost import cost

DAY = 86_400
START = int(NOW) // DAY * DAY + 3_600 * 5  # in the middle of a key's day
ISSUER = "https://gateway.example"
ADA = Identity(
    "https://id",
    "ada",
    "jwt",
    "sid-1",
    START + 600.0,
    org="acme",
    name="Ada \u00c9",
    email="ada@example",
    department="it",
    roles=(Role("admin", "acme"), Role("reader")),
    amr=("pwd", "otp"),
    auth_time=START - 30.5,
)
LAPTOP = Device("d1", "A" * 43)
SESSION = Session("b_1", START)


class World:
    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.now = float(START)

    def asserter(self) -> Asserter:
        return Asserter(self.store, ISSUER, lambda: self.now)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = SqliteStore(tmp_path / "gateway.db", bytes(32))
    yield World(store)
    await store.close()


def sign(asserter: Asserter, identity: Identity = ADA, **changes: Any) -> str:
    values = {"audience": "wiki", "identity": identity, "device": LAPTOP, "session": SESSION}
    values |= {"decision_id": "dec1", "method": "POST", "path": "/a%20b"}
    return asserter.sign(**{**values, **changes})


def read(token: str, asserter: Asserter, now: float, audience: str = "wiki") -> dict[str, Any]:
    """What an upstream would read, with nothing but the published keys."""
    kid = jwt.get_unverified_header(token)["kid"]
    keys = [key for key in asserter.jwks()["keys"] if key["kid"] == kid]
    assert len(keys) == 1, "the key is not published"
    key = jwt.PyJWK(keys[0])
    options: Any = {"require": ["exp", "iat", "aud", "iss", "sub", "jti"], "verify_exp": False, "verify_iat": False}
    claims = jwt.decode(token, key, algorithms=["ES256"], audience=audience, issuer=ISSUER, options=options)
    assert claims["iat"] <= now < claims["exp"]
    return claims


async def test_an_upstream_reads_who_is_calling(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    token = sign(asserter)
    claims = read(token, asserter, world.now)
    assert claims.pop("jti") == "dec1"
    assert claims == {
        "iss": ISSUER,
        "aud": "wiki",
        "iat": START,
        "exp": START + 60,
        "sub": "ada",
        "sub_iss": "https://id",
        "email": "ada@example",
        "name": "Ada \u00c9",
        "roles": [{"key": "admin", "org": "acme"}, {"key": "reader", "org": ""}],
        "department": "it",
        "org": "acme",
        "sid": "b_1",
        "device": "d1",
        "amr": ["pwd", "otp"],
        "auth_time": START - 31,
        "decision": "dec1",
        "req": {"method": "POST", "path": "/a%20b"},
    }
    assert jwt.get_unverified_header(token)["typ"] == "gateway-assertion+jwt"


async def test_what_is_not_known_is_left_out(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    bare = Identity("https://id", "svc", "opaque", "", START + 60.0)
    claims = read(sign(asserter, bare, device=None, session=None), asserter, world.now)
    assert not claims.keys() & {"email", "name", "department", "org", "sid", "device", "auth_time"}
    assert (claims["roles"], claims["amr"]) == ([], [])


async def test_an_assertion_for_one_service_is_none_for_another(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    with pytest.raises(jwt.InvalidAudienceError):
        read(sign(asserter), asserter, world.now, audience="payroll")


async def test_a_changed_assertion_does_not_verify(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    head, payload, signature = sign(asserter).split(".")
    other = sign(asserter, path="/other").split(".")[1]
    with pytest.raises(jwt.InvalidSignatureError):
        read(f"{head}.{other}.{signature}", asserter, world.now)
    assert payload != other


async def test_without_a_key_nothing_is_signed(world: World) -> None:
    asserter = world.asserter()
    with pytest.raises(RuntimeError, match="no signing key"):
        sign(asserter)
    assert asserter.jwks() == {"keys": []}


async def test_the_published_keys_hold_nothing_private(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    for key in asserter.jwks()["keys"]:
        assert key.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}
        assert (key["alg"], key["use"], len(key["x"]), len(key["y"])) == ("ES256", "sig", 43, 43)


async def test_workers_share_their_keys(world: World) -> None:
    first, second = world.asserter(), world.asserter()
    await first.refresh()
    await second.refresh()
    assert first.jwks() == second.jwks()
    read(sign(first), second, world.now)


async def test_keys_follow_each_other_without_a_gap_and_are_published_an_hour_before(world: World) -> None:
    asserter = world.asserter()
    published: dict[str, float] = {}
    signed: list[tuple[float, str]] = []
    used: list[str] = []
    for step in range(0, 4 * DAY, 600):
        world.now = START + step + 0.5
        await asserter.refresh()
        for key in asserter.jwks()["keys"]:
            published.setdefault(key["kid"], world.now)
        token = sign(asserter)
        kid = jwt.get_unverified_header(token)["kid"]
        if kid not in used:
            used.append(kid)
            assert world.now == START + 0.5 or world.now - published[kid] >= 3_000
        signed.append((world.now, token))
        # What was signed a minute ago is still verifiable now.
        at, before = signed[-2] if len(signed) > 1 else signed[-1]
        read(before, asserter, at)
        assert len(asserter.jwks()["keys"]) <= 3
    assert len(used) == 5
    assert len(await world.store.secrets(PURPOSE)) <= 2


async def test_a_key_stays_published_until_all_it_signed_has_expired(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    end = START // DAY * DAY + DAY
    world.now = end - 3_000
    await asserter.refresh()
    world.now = end - 1
    last = sign(asserter)
    world.now = end
    assert jwt.get_unverified_header(sign(asserter))["kid"] != jwt.get_unverified_header(last)["kid"]
    world.now = end + 59
    await asserter.refresh()
    read(last, asserter, end + 58)
    world.now = end + 60 + 601
    await asserter.refresh()
    assert len(asserter.jwks()["keys"]) == 1


async def test_a_worker_that_slept_finds_its_way_back(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    world.now = START + 10 * DAY
    with pytest.raises(RuntimeError, match="no signing key"):
        sign(asserter)
    await asserter.refresh()
    read(sign(asserter), asserter, world.now)


async def test_the_keys_in_use_outlive_a_store_that_is_down(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    await world.store.close()
    with pytest.raises(StoreDown):
        await asserter.refresh()
    read(sign(asserter), asserter, world.now)


async def test_a_secret_that_is_no_key_is_passed_over(world: World) -> None:
    for name, value in (("garbage", b"garbage"), ("1-2", b"garbage")):
        await world.store.put_secret(PURPOSE, name, world.now, value)
    asserter = world.asserter()
    await asserter.refresh()
    read(sign(asserter), asserter, world.now)


def test_keys_that_follow_too_fast_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="two hours"):
        Asserter(world.store, ISSUER, rotate_s=3_600)


async def test_keys_are_not_shown(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    assert "ECPrivateKey" not in repr(asserter._keys)


async def test_signing_takes_microseconds(world: World) -> None:
    asserter = world.asserter()
    await asserter.refresh()
    assert cost(lambda: sign(asserter)) < 20  # 5
