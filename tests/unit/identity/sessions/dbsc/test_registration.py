"""A session's key in the browser: how it is asked for, proven, missed; every trap of the wire is a test here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import paths as own
from gateway.core.cookies import BOUND, SESSION, SSO, cookie
from gateway.core.reasons import Refusal
from gateway.identity.jose import key_proof as keyproof
from gateway.identity.sessions.dbsc import (
    CHALLENGES,
    LIFE_S,
    RESPONSE,
    SESSION_ID,
    Challenged,
    Instructions,
    Over,
)
from tests.support.dbsc_world import HOLDER, Bound, reason_of
from tests.support.login_world import LAPTOP, SHOP, WIKI, Browser, random
from tests.support.proof_world import Holder


async def test_the_answer_that_opens_a_session_asks_for_a_key(bound: Bound) -> None:
    assert await bound.arrive(Browser())
    assert await bound.offered((cookie("theme", "dark"), cookie(SSO, random())))


async def test_an_answer_that_opens_none_asks_for_nothing(bound: Bound) -> None:
    for cookies in ((), (cookie("theme", "dark"),), (cookie(SESSION, "", 0),), (cookie(BOUND, random()),), ("",)):
        assert await bound.keys.offer(cookies) == ()
    assert not bound.world.documents.of(CHALLENGES)


async def test_a_browser_that_makes_no_key_goes_on_unbound(bound: Bound) -> None:
    browser = Browser(LAPTOP)
    await bound.arrive(browser)
    bound.world.clock.pass_(1_000)
    assert await bound.ask(browser) == ("device",)


@pytest.mark.parametrize("kind", ["ES256", "RS256"])
async def test_a_registered_key_binds_the_session(bound: Bound, kind: str) -> None:
    browser = Browser(LAPTOP)
    await bound.bind(browser, Holder(kind))
    assert await bound.ask(browser) == ("device", "dbsc")


async def test_the_instructions_are_those_of_the_specification(bound: Bound) -> None:
    found = await bound.register(await bound.arrive(Browser()))
    assert found.document == {
        "session_identifier": found.document["session_identifier"],
        "refresh_url": "/.gateway/dbsc/refresh",
        "scope": {
            "origin": f"https://{WIKI}:8443",
            "include_site": False,
            "scope_specification": [{"type": "exclude", "domain": WIKI, "path": "/.gateway/dbsc/"}],
        },
        "credentials": [
            {
                "type": "cookie",
                "name": "__Host-gateway-bound",
                "attributes": "Path=/; Secure; HttpOnly; SameSite=Lax",
            }
        ],
        "allowed_refresh_initiators": ["*"],
    }


async def test_the_attributes_are_those_of_the_cookie_that_is_set(bound: Bound) -> None:
    browser = Browser()
    registered = await bound.register(await bound.arrive(browser))
    name = bound.keep(browser, registered)
    refreshed = await bound.refresh(name, await bound.challenge(name))
    for found in (registered, refreshed):
        (credential,) = found.document["credentials"]
        pair, _, attributes = found.set_cookie.partition("; ")
        assert pair.partition("=")[0] == credential["name"]
        assert attributes == f"{credential['attributes']}; Max-Age={LIFE_S:.0f}"


@pytest.mark.parametrize("challenge", [None, 7, "", "x", "a" * 43, "\u00e4"])
async def test_a_key_without_our_challenge_is_refused(bound: Bound, challenge: Any) -> None:
    browser = Browser()
    await bound.arrive(browser)
    assert reason_of(await bound.register(challenge)) == "key_proof_invalid"
    assert await bound.ask(browser) == ()


async def test_a_challenge_is_good_once_also_when_its_proof_was_bad(bound: Bound) -> None:
    challenge = await bound.arrive(Browser())
    assert reason_of(await bound.register(challenge, jwk=Holder().jwk)) == "key_proof_invalid"
    assert reason_of(await bound.register(challenge)) == "key_proof_invalid"


async def test_of_many_registrations_at_once_one_is_taken(bound: Bound) -> None:
    challenge = await bound.arrive(Browser())
    found = await asyncio.gather(*(bound.register(challenge, Holder()) for _ in range(8)))
    assert sorted(isinstance(one, Instructions) for one in found) == [False] * 7 + [True]


async def test_a_challenge_ends(bound: Bound) -> None:
    challenge = await bound.arrive(Browser())
    bound.world.clock.pass_(301)
    assert reason_of(await bound.register(challenge)) == "key_proof_invalid"


async def test_a_session_keeps_its_first_key(bound: Bound) -> None:
    browser = Browser()
    outcome = await bound.world.sign_in(browser)
    first, second = await bound.offered(outcome.cookies), await bound.offered(outcome.cookies)
    bound.keep(browser, await bound.register(first))
    assert reason_of(await bound.register(second, Holder())) == "key_proof_invalid"
    assert await bound.ask(browser) == ("dbsc",)


async def test_a_challenge_belongs_to_its_host_and_its_use(bound: Bound) -> None:
    assert reason_of(await bound.register(await bound.arrive(Browser()), host=SHOP)) == "key_proof_invalid"
    browser = Browser()
    outcome = await bound.world.sign_in(browser)
    challenge = await bound.offered(outcome.cookies)
    name = bound.keep(browser, await bound.register(await bound.offered(outcome.cookies)))
    assert isinstance(await bound.refresh(name, challenge), Challenged)
    assert reason_of(await bound.register(await bound.challenge(name))) == "key_proof_invalid"


async def test_a_session_that_is_over_gets_no_key(bound: Bound) -> None:
    challenge = await bound.arrive(Browser())
    await bound.world.logins.end((await bound.world.only_login()).id, "signed out")
    assert reason_of(await bound.register(challenge)) == "key_proof_invalid"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "EdDSA"},
        {"alg": "ES384"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": "RS256"},
        {"typ": "JWT"},
        {"typ": "dpop+jwt"},
        {"typ": None},
        {"jwk": None},
        {"jwk": HOLDER.private_jwk()},
        {"jwk": {"kty": "oct", "k": "AA"}},
        {"jwk": {}},
        {"crit": ["x"]},
    ],
)
async def test_a_registration_of_another_form_is_refused(bound: Bound, header: dict[str, Any]) -> None:
    assert reason_of(await bound.register(await bound.arrive(Browser()), **header)) == "key_proof_invalid"


async def test_algorithms_are_two_and_are_looked_at_before_a_key_is_made(
    bound: Bound, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(keyproof, "published_keys", made)
    challenge = await bound.arrive(Browser())
    assert reason_of(await bound.register(challenge, Holder("EdDSA"))) == "key_proof_invalid"
    assert len(bound.world.documents.of(CHALLENGES)) == 1


async def test_a_weak_key_is_refused(bound: Bound) -> None:
    assert reason_of(await bound.register(await bound.arrive(Browser()), Holder("weak"))) == "key_proof_invalid"


@pytest.mark.parametrize("quoted", ['"{}"', "{}"])
async def test_the_proof_may_stand_in_quotes(bound: Bound, quoted: str) -> None:
    proof = HOLDER.sign({"alg": "ES256", "typ": "dbsc+jwt", "jwk": HOLDER.jwk}, {"jti": await bound.arrive(Browser())})
    found = await bound.keys.register(bound.facts(own.DBSC_REGISTER, **{RESPONSE: quoted.format(proof)}))
    assert isinstance(found, Instructions)


@settings(max_examples=40, deadline=None)
@given(st.text("ab.\"'=;, ", max_size=30))
def test_whatever_the_browser_says_is_a_value(text: str) -> None:
    async def ask() -> None:
        with TemporaryDirectory() as folder:
            bound = Bound(Path(folder))
            facts = bound.facts(own.DBSC_REGISTER, **{RESPONSE: text, SESSION_ID: text})
            assert isinstance(await bound.keys.register(facts), Refusal)
            assert isinstance(await bound.keys.refresh(facts), Refusal | Over)
            await bound.world.close()

    asyncio.run(ask())
