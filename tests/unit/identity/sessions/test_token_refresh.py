"""Renewing tokens: one refresh, whatever the number of requests and workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.reasons import Refusal
from gateway.core.subject import Identity, Role, Session
from gateway.identity.sessions.token_refresh import LEASE_S
from tests.support.login_world import LAPTOP, WIKI, WIKI_ROUTE, Browser, Worker, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def browser(world: World) -> Browser:
    made = Browser(LAPTOP)
    await world.sign_in(made)
    return made


async def test_200_parallel_requests_on_two_workers_at_expiry_make_one_refresh(world: World, browser: Browser) -> None:
    second = Worker(world)
    world.clock.pass_(901)
    world.provider.slow_s = 0.15
    world.provider.roles = ("admin",)
    facts = browser.facts(f"https://{WIKI}/")
    readers = [world.reader, second.reader] * 100
    found = await asyncio.gather(*(reader.read(facts, WIKI_ROUTE) for reader in readers))
    assert world.provider.asked["refresh_token"] == 1
    assert {identity.roles for identity in found if isinstance(identity, Identity)} == {(Role("admin", "org"),)}
    assert not [identity for identity in found if not isinstance(identity, Identity)]
    await second.close()


async def test_before_expiry_a_refresh_runs_beside_the_requests(world: World, browser: Browser) -> None:
    world.clock.pass_(845)
    world.provider.slow_s = 0.05
    assert isinstance(await world.ask(browser), Session)
    assert world.refresher._flight.busy((await world.only_login()).id)
    await asyncio.sleep(0.15)
    assert (await world.only_login()).fresh_until == world.clock() + 900
    assert world.provider.asked["refresh_token"] == 1
    world.clock.pass_(100)
    assert isinstance(await world.ask(browser), Session)
    assert world.provider.asked["refresh_token"] == 1


async def test_the_new_tokens_are_kept_and_used_for_the_next_refresh(world: World, browser: Browser) -> None:
    for count in (1, 2, 3):
        world.clock.pass_(901)
        assert isinstance(await world.ask(browser), Session)
        assert world.provider.asked["refresh_token"] == count
    kept = await world.logins.tokens((await world.only_login()).id)
    assert kept is not None
    assert kept[0].refresh_token in world.provider.refreshable
    assert len(world.provider.refreshable) == 1


async def test_an_issuer_that_keeps_its_refresh_token_sends_none(world: World, browser: Browser) -> None:
    login = await world.only_login()
    kept = await world.logins.tokens(login.id)
    assert kept is not None
    world.provider.answer["refresh_token"] = None
    world.provider.answer["id_token"] = None
    world.clock.pass_(901)
    assert isinstance(await world.ask(browser), Session)
    after = await world.logins.tokens(login.id)
    assert after is not None
    assert (after[0].refresh_token, after[0].id_token) == (kept[0].refresh_token, kept[0].id_token)
    assert after[0].access_token != kept[0].access_token
    assert (await world.only_login()).identity.roles == (Role("staff", "org"),)


async def test_a_session_the_issuer_does_not_renew_ends(world: World, browser: Browser) -> None:
    world.provider.refreshable.clear()
    world.clock.pass_(901)
    assert await world.ask(browser) == "session_revoked"
    assert await world.ask(browser) == "session_revoked"
    assert world.provider.asked["refresh_token"] == 1


async def test_an_issuer_that_is_down_costs_nothing_before_expiry_and_access_after(
    world: World, browser: Browser
) -> None:
    world.provider.is_down = True
    world.clock.pass_(850)
    for _ in range(3):
        assert isinstance(await world.ask(browser), Session)
        await asyncio.sleep(0.01)
    assert world.provider.asked["refresh_token"] == 1  # then it waits a while
    world.clock.pass_(51)
    assert await world.ask(browser) == "issuer_unavailable"
    assert await world.ask(browser) == "issuer_unavailable"
    assert world.provider.asked["refresh_token"] == 2
    world.provider.is_down = False
    world.clock.pass_(6)
    assert isinstance(await world.ask(browser), Session)


@pytest.mark.parametrize(
    "claims", [{"sub": "bob"}, {"auth_time": 1_700_000_000}, {"aud": ["x"]}, {"iss": "https://x"}, {"at_hash": "x"}]
)
async def test_a_renewed_id_token_about_another_sign_in_ends_the_session(
    world: World, browser: Browser, claims: dict[str, object]
) -> None:
    world.provider.claims = claims
    world.clock.pass_(901)
    assert await world.ask(browser) == "session_revoked"


async def test_a_newer_sign_in_at_another_application_ends_nothing(world: World, browser: Browser) -> None:
    first = (await world.only_login()).identity.auth_time
    world.provider.claims = {"auth_time": int(world.clock()) + 900}
    world.clock.pass_(901)
    assert isinstance(await world.ask(browser), Session)
    assert (await world.only_login()).identity.auth_time == first


async def test_tokens_whose_id_token_cannot_be_checked_now_are_kept_for_the_next_try(
    world: World, browser: Browser
) -> None:
    world.clock.pass_(901)
    asked = world.provider.asked["refresh_token"]
    refusal = Refusal("issuer_unavailable", "keys")

    async def no_keys(*_: object, **__: object) -> Refusal:
        return refusal

    world.parties[0].renewed_claims = no_keys  # type: ignore[method-assign]
    assert await world.ask(browser) == "issuer_unavailable"
    del world.parties[0].renewed_claims
    world.clock.pass_(6)
    assert isinstance(await world.ask(browser), Session)
    assert world.provider.asked["refresh_token"] == asked + 2


async def test_a_worker_that_died_with_the_lock_is_waited_out(world: World, browser: Browser) -> None:
    login = await world.only_login()
    await world.documents.put("lock", login.id, b"dead", world.clock() + 901 + LEASE_S, version=0)
    world.clock.pass_(901)
    asked = asyncio.ensure_future(world.ask(browser))
    await asyncio.sleep(0.2)
    assert not asked.done()
    world.clock.pass_(LEASE_S)
    assert isinstance(await asked, Session)
    assert world.provider.asked["refresh_token"] == 1


async def test_the_lock_is_given_back(world: World, browser: Browser) -> None:
    world.clock.pass_(901)
    await world.ask(browser)
    login = await world.only_login()
    assert await world.documents.get("lock", login.id, world.clock()) is None


async def test_without_a_refresh_token_a_session_has_only_its_own_limits(world: World) -> None:
    world.provider.answer["refresh_token"] = None
    browser = Browser(LAPTOP)
    await world.sign_in(browser)
    world.clock.pass_(1_700)
    assert isinstance(await world.ask(browser), Session)
    assert world.provider.asked["refresh_token"] == 0


async def test_a_logout_while_a_refresh_runs_is_not_undone(world: World, browser: Browser) -> None:
    world.clock.pass_(901)
    world.provider.slow_s = 0.1
    asked = asyncio.ensure_future(world.ask(browser))
    await asyncio.sleep(0.03)
    login = await world.only_login()
    await world.logins.end(login.id, "signed out")
    assert await asked == "session_revoked"
    assert await world.ask(browser) == "session_revoked"
    assert not world.documents.of("tokens")


async def test_too_many_refreshes_at_once_are_refused(world: World, browser: Browser) -> None:
    world.clock.pass_(901)
    world.refresher._flight._limit = 0
    found = await world.reader.read(browser.facts(f"https://{WIKI}/"), WIKI_ROUTE)
    assert isinstance(found, Refusal)
    assert found.reason == "issuer_unavailable"
