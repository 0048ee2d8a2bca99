"""A session's key in the browser: how it is asked for, proven, missed; every trap of the wire is a test here."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import paths as own
from gateway.core.cookies import BOUND, SESSION, SSO, cookie, sets_ours, without_ours
from gateway.core.reasons import REASONS, Refusal
from gateway.core.routes import Route
from gateway.core.subject import Session
from gateway.identity.jose import key_proof as keyproof
from gateway.identity.sessions.cookies import BrowserBinder
from gateway.identity.sessions.dbsc import (
    CHALLENGES,
    COLLECTION,
    GRACE_S,
    LIFE_S,
    REGISTRATION,
    RESPONSE,
    SESSION_ID,
    Challenged,
    Dbsc,
    Instructions,
    Over,
)
from tests.support.login_world import HOST, LAPTOP, SHOP, WIKI, Browser, World, origin, random, twin
from tests.support.proof_world import Holder

OFFER = re.compile(r'\(ES256 RS256\);path="/\.gateway/dbsc/register";challenge="([A-Za-z0-9_-]{43})"\Z')
CHALLENGE = re.compile(r'"([A-Za-z0-9_-]{43})";id="([0-9a-f]{64})"\Z')
HOLDER = Holder()


class Bound:
    """The world of sign-ins, with keys; and what a browser that has some does by itself."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.keys = self.worker()
        world = self.world
        world.binder = BrowserBinder(world.logins, world.store, world.clock, (self.keys,))

    def worker(self) -> Dbsc:
        world = self.world
        return Dbsc(world.documents, world.cookies, world.logins, origin=origin, clock=world.clock, random=random)

    async def arrive(self, browser: Browser) -> str:
        """Sign in; the challenge of the offer that comes with the session cookie."""
        outcome = await self.world.sign_in(browser)
        return await self.offered(outcome.cookies)

    async def offered(self, cookies: tuple[str, ...]) -> str:
        ((name, value),) = await self.keys.offer(cookies)
        match = OFFER.match(value)
        assert name == REGISTRATION
        assert match is not None
        return match[1]

    def facts(self, path: str, host: str = WIKI, **headers: str) -> Any:
        """A request of the browser itself: neither cookie nor origin nor site."""
        return Browser().facts(f"https://{host}{path}", "POST", **headers)

    async def register(self, challenge: Any, holder: Holder = HOLDER, host: str = WIKI, **header: Any) -> Any:
        head = {"alg": holder.algorithm, "typ": "dbsc+jwt", "jwk": holder.jwk} | header
        proof = holder.sign(head, {"jti": challenge})
        return await self.keys.register(self.facts(own.DBSC_REGISTER, host, **{RESPONSE: proof}))

    async def refresh(
        self, name: str, challenge: str | None = None, holder: Holder = HOLDER, host: str = WIKI, **header: Any
    ) -> Any:
        sent = {SESSION_ID: name}
        if challenge is not None:
            head = {"alg": holder.algorithm, "typ": "dbsc+jwt"} | header
            sent[RESPONSE] = holder.sign(head, {"jti": challenge})
        return await self.keys.refresh(self.facts(own.DBSC_REFRESH, host, **sent))

    async def challenge(self, name: str) -> str:
        found = await self.refresh(name)
        assert isinstance(found, Challenged), found
        match = CHALLENGE.match(found.header)
        assert match is not None
        assert match[2] == name
        return match[1]

    async def bind(self, browser: Browser, holder: Holder = HOLDER) -> str:
        """Sign in with a browser that has keys; the name of its session."""
        found = await self.register(await self.arrive(browser), holder)
        return self.keep(browser, found)

    def keep(self, browser: Browser, found: Any) -> str:
        assert isinstance(found, Instructions), found
        browser.keep(WIKI, (found.set_cookie,))
        return str(found.document["session_identifier"])

    async def ask(self, browser: Browser) -> Any:
        found = await self.world.ask(browser)
        return found.bound_by if isinstance(found, Session) else found


@pytest.fixture
async def bound(tmp_path: Path) -> AsyncIterator[Bound]:
    made = Bound(tmp_path)
    yield made
    await made.world.close()


def reason_of(outcome: Any) -> str:
    assert isinstance(outcome, Refusal), outcome
    assert outcome.reason in REASONS
    return outcome.reason


def without(browser: Browser) -> Browser:
    """Somebody with the session cookie alone."""
    thief = twin(browser)
    thief.jars[WIKI].pop(BOUND, None)
    return thief


# ---- the offer ----


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


# ---- registration ----


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


# ---- use ----


async def test_what_was_sent_before_the_key_was_there_may_still_arrive(bound: Bound) -> None:
    browser = Browser()
    early = twin(browser)
    challenge = await bound.arrive(early)
    bound.keep(browser, await bound.register(challenge))
    assert await bound.ask(early) == ()
    bound.world.clock.pass_(11)
    assert await bound.ask(early) == "binding_unproven"


async def test_a_stolen_cookie_is_refused_and_ends_the_session_after_the_grace(bound: Bound) -> None:
    browser = Browser()
    await bound.bind(browser)
    thief = without(browser)
    bound.world.clock.pass_(11)
    assert await bound.ask(thief) == "binding_unproven"
    bound.world.clock.pass_(GRACE_S - 1)
    assert await bound.ask(thief) == "binding_unproven"
    assert await bound.ask(browser) == ("dbsc",)
    bound.world.clock.pass_(1)
    assert await bound.ask(thief) == "binding_mismatch"
    assert await bound.ask(browser) == "session_revoked"


async def test_a_proof_within_the_grace_begins_it_anew(bound: Bound) -> None:
    browser = Browser()
    name = await bound.bind(browser)
    thief = without(browser)
    bound.world.clock.pass_(11)
    assert await bound.ask(thief) == "binding_unproven"
    bound.world.clock.pass_(GRACE_S - 1)
    bound.keep(browser, await bound.refresh(name, await bound.challenge(name)))
    bound.world.clock.pass_(GRACE_S - 1)
    assert await bound.ask(thief) == "binding_unproven"
    assert await bound.ask(browser) == ("dbsc",)


async def test_the_bound_cookie_is_short_lived_and_a_while_in_flight(bound: Bound) -> None:
    browser = Browser()
    await bound.bind(browser)
    bound.world.clock.pass_(LIFE_S + 9)
    assert await bound.ask(browser) == ("dbsc",)
    bound.world.clock.pass_(1)
    assert await bound.ask(browser) == "binding_unproven"


@pytest.mark.parametrize("value", ["", "x", "a" * 43, "a" * 44])
async def test_a_bound_cookie_that_is_none_proves_nothing(bound: Bound, value: str) -> None:
    browser = Browser()
    await bound.bind(browser)
    bound.world.clock.pass_(11)
    browser.jars[WIKI][BOUND] = value
    assert await bound.ask(browser) == "binding_unproven"


async def test_two_bound_cookies_are_none(bound: Bound) -> None:
    browser = Browser()
    await bound.bind(browser)
    sent = "; ".join(f"{name}={value}" for name, value in browser.jars[WIKI].items())
    assert await bound.world.ask(browser, cookie=f"{sent}; {BOUND}={random()}") == "cookie_ambiguous"


async def test_the_bound_cookie_of_another_session_proves_nothing(bound: Bound) -> None:
    browser, other = Browser(), Browser()
    await bound.bind(browser)
    await bound.bind(other, Holder())
    bound.world.clock.pass_(11)
    other.jars[WIKI][BOUND] = browser.jars[WIKI][BOUND]
    assert await bound.ask(other) == "binding_unproven"


async def test_the_store_holds_no_cookie_and_no_challenge(bound: Bound) -> None:
    browser = Browser()
    challenge = await bound.arrive(browser)
    kept = repr(bound.world.documents.kept)
    assert challenge not in kept
    bound.keep(browser, await bound.register(challenge))
    kept = repr(bound.world.documents.kept)
    assert not [value for value in browser.jars[WIKI].values() if value in kept]


async def test_a_zero_log_route_is_bound_as_well(bound: Bound) -> None:
    browser = Browser()
    await bound.bind(browser)
    route = Route("shop", WIKI, plane="user")
    assert (await bound.world.ask(browser, route=route)).bound_by == ("dbsc",)
    bound.world.clock.pass_(11)
    assert await bound.world.ask(without(browser), route=route) == "binding_unproven"


def test_the_bound_cookie_stays_from_upstreams() -> None:
    assert without_ours([f"a=1; {BOUND}=x"]) == ["a=1"]
    assert sets_ours(f"{BOUND}=x; Path=/")


# ---- refresh ----


async def test_a_refresh_is_asked_for_a_proof_and_then_gets_the_next_cookie(bound: Bound) -> None:
    browser = Browser()
    name = await bound.bind(browser)
    first = browser.jars[WIKI][BOUND]
    bound.world.clock.pass_(LIFE_S - 60)
    found = await bound.refresh(name, await bound.challenge(name))
    before = twin(browser)
    assert bound.keep(browser, found) == name
    assert browser.jars[WIKI][BOUND] != first
    # Requests that are under way still bring the one before.
    assert await bound.ask(before) == await bound.ask(browser) == ("dbsc",)
    bound.world.clock.pass_(LIFE_S)
    assert await bound.ask(before) == "binding_unproven"
    assert await bound.ask(browser) == ("dbsc",)


async def test_of_all_cookies_the_last_two_count(bound: Bound) -> None:
    browser = Browser()
    name = await bound.bind(browser)
    jars = [twin(browser)]
    for _ in range(2):
        bound.keep(browser, await bound.refresh(name, await bound.challenge(name)))
        jars.append(twin(browser))
    bound.world.clock.pass_(11)
    assert [await bound.ask(one) for one in jars] == ["binding_unproven", ("dbsc",), ("dbsc",)]


async def test_a_refresh_needs_no_cookie_and_names_its_session_with_or_without_quotes(bound: Bound) -> None:
    name = await bound.bind(Browser())
    for sent in (name, f'"{name}"'):
        assert isinstance(await bound.refresh(sent, await bound.challenge(name)), Instructions)


@pytest.mark.parametrize("name", ["", "x", "0" * 64, '"', '""', "\u00e9"])
async def test_a_session_nobody_knows_is_over(bound: Bound, name: str) -> None:
    found = await bound.refresh(name)
    assert isinstance(found, Over)
    assert found.document == {"continue": False}


async def test_a_session_that_ended_is_over_in_the_browser_too(bound: Bound) -> None:
    name = await bound.bind(Browser())
    challenge = await bound.challenge(name)
    await bound.world.logins.end((await bound.world.only_login()).id, "signed out")
    assert isinstance(await bound.refresh(name), Over)
    assert isinstance(await bound.refresh(name, challenge), Over)


async def test_a_session_whose_cookie_was_replaced_is_over(bound: Bound) -> None:
    browser = Browser()
    name = await bound.bind(browser)
    login = await bound.world.only_login()
    await bound.world.cookies.rotate(browser.jars[WIKI][SESSION], login, WIKI, None)
    assert isinstance(await bound.refresh(name), Over)


async def test_a_session_without_a_key_or_of_another_host_is_over(bound: Bound) -> None:
    browser = Browser()
    await bound.arrive(browser)
    found = await bound.world.cookies.find(browser.jars[WIKI][SESSION])
    assert found is not None
    assert isinstance(await bound.refresh(found.key), Over)
    name = await bound.bind(Browser())
    assert isinstance(await bound.refresh(name, host=SHOP), Over)


async def test_two_names_are_none(bound: Bound) -> None:
    facts = bound.facts(own.DBSC_REFRESH)
    assert reason_of(await bound.keys.refresh(facts)) == "key_proof_invalid"


async def test_a_refresh_that_brings_a_key_is_refused(bound: Bound) -> None:
    name = await bound.bind(Browser())
    for holder in (HOLDER, Holder()):
        found = await bound.refresh(name, await bound.challenge(name), holder, jwk=holder.jwk)
        assert reason_of(found) == "key_proof_invalid"


async def test_a_refresh_with_another_key_or_algorithm_is_refused(bound: Bound) -> None:
    browser = Browser()
    name = await bound.bind(browser)
    for holder in (Holder(), Holder("RS256"), Holder("EdDSA")):
        assert reason_of(await bound.refresh(name, await bound.challenge(name), holder)) == "key_proof_invalid"
    assert await bound.ask(browser) == ("dbsc",)


async def test_a_challenge_is_good_once_and_the_next_proof_is_asked_for_anew(bound: Bound) -> None:
    name = await bound.bind(Browser())
    challenge = await bound.challenge(name)
    assert isinstance(await bound.refresh(name, challenge), Instructions)
    for spent in (challenge, random(), ""):
        found = await bound.refresh(name, spent)
        assert isinstance(found, Challenged)
        assert challenge not in found.header


async def test_a_challenge_of_another_session_is_asked_for_anew(bound: Bound) -> None:
    one, other = await bound.bind(Browser()), await bound.bind(Browser())
    assert isinstance(await bound.refresh(one, await bound.challenge(other)), Challenged)


async def test_of_many_answers_to_one_challenge_one_counts(bound: Bound) -> None:
    name = await bound.bind(Browser())
    challenge = await bound.challenge(name)
    found = await asyncio.gather(*(bound.refresh(name, challenge) for _ in range(8)))
    assert sorted(isinstance(one, Instructions) for one in found) == [False] * 7 + [True]


async def test_refreshes_at_once_all_give_a_cookie(bound: Bound) -> None:
    browser = Browser()
    name = await bound.bind(browser)
    challenges = [await bound.challenge(name) for _ in range(3)]
    found = await asyncio.gather(*(bound.refresh(name, challenge) for challenge in challenges))
    assert all(isinstance(one, Instructions) for one in found)
    (key,) = bound.world.documents.of(COLLECTION)
    assert len(key["cookies"]) == 2


async def test_any_worker_goes_on_where_another_began(bound: Bound) -> None:
    browser = Browser()
    name = await bound.bind(browser)
    challenge = await bound.challenge(name)
    bound.keys = bound.worker()
    assert isinstance(await bound.refresh(name, challenge), Instructions)


# ---- the gateway's own host ----


async def test_the_sign_in_on_the_own_host_can_have_a_key_of_its_own(bound: Bound) -> None:
    browser, world = Browser(), bound.world
    await world.sign_in(browser)
    value = browser.jars[HOST][SSO]
    found = await bound.register(await bound.offered((cookie(SSO, value),)), host=HOST)
    assert isinstance(found, Instructions)
    session, login = await world.cookies.find(value), await world.only_login()
    assert session is not None
    browser.keep(HOST, (found.set_cookie,))
    world.clock.pass_(11)
    facts = browser.facts(f"https://{HOST}/.gateway/me")
    assert await bound.keys.prove(session, login, facts) == ("dbsc",)
    bare = Browser().facts(f"https://{HOST}/.gateway/me")
    assert reason_of(await bound.keys.prove(session, login, bare)) == "binding_unproven"
    assert json.loads(json.dumps(found.document))["scope"]["origin"] == origin(HOST)
