"""A session's key in the browser: how it is asked for, proven, missed; every trap of the wire is a test here."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.core import paths as own
from gateway.core.cookies import BOUND, SESSION, SSO, cookie, sets_ours, without_ours
from gateway.core.routes import Route
from gateway.identity.sessions.dbsc import (
    COLLECTION,
    GRACE_S,
    LIFE_S,
    Challenged,
    Instructions,
    Over,
)
from tests.support.dbsc_world import HOLDER, Bound, reason_of, without
from tests.support.login_world import HOST, SHOP, WIKI, Browser, origin, random, twin
from tests.support.proof_world import Holder


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
