"""What people do about their own sessions, and who may not do it for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.core.cookies import SSO, no_cookie
from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal
from gateway.core.subject import Session
from gateway.identity.account.sessions import Mine
from tests.support.login_world import (
    CLIENT,
    HOST,
    ISSUER,
    LAPTOP,
    PHONE,
    WIKI,
    Browser,
    World,
    origin,
    random,
    reason_of,
    twin,
)

ME = f"https://{HOST}/.gateway/me"
OWN = {"origin": origin(HOST), "sec_fetch_site": "same-origin"}


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


async def mine(world: World, browser: Browser) -> Mine:
    found = await world.own.mine(browser.facts(ME), browser.device)
    assert isinstance(found, Mine)
    return found


async def post(world: World, browser: Browser, form: dict[str, str], **headers: str) -> Any:
    facts = browser.facts(ME, method="POST", **(headers or OWN))
    return await world.own.end(facts, browser.device, form)


async def test_a_person_sees_the_own_sessions_newest_first(world: World, browser: Browser) -> None:
    world.clock.pass_(10)
    second = Browser(PHONE)
    await world.sign_in(second)
    stranger = Browser()
    world.provider.claims = {"sub": "bob", "sid": "sid-b"}
    await world.sign_in(stranger)
    found = await mine(world, browser)
    document = found.document()
    assert [item["device_id"] for item in document["sessions"]] == ["phone", "laptop"]
    assert [item["current"] for item in document["sessions"]] == [False, True]
    assert document["sessions"][0]["browser"] == "Firefox"
    assert (document["name"], document["email"]) == ("Ada", "ada@example.com")
    assert found.csrf not in repr(found)


async def test_one_session_can_be_ended_and_only_an_own_one(world: World, browser: Browser) -> None:
    second = Browser(PHONE)
    await world.sign_in(second)
    found = await mine(world, browser)
    (other,) = [login.id for login in found.sessions if login.id != found.current.id]
    assert await post(world, browser, {"csrf": found.csrf, "action": "end", "id": "l_nobody"}) == 0
    assert await post(world, browser, {"csrf": found.csrf, "action": "end", "id": other}) == 1
    assert await world.ask(second) == "session_revoked"
    assert isinstance(await world.ask(browser), Session)
    stranger = Browser()
    world.provider.claims = {"sub": "bob", "sid": "sid-b"}
    await world.sign_in(stranger)
    theirs = await mine(world, stranger)
    wanted = {"csrf": theirs.csrf, "action": "end", "id": found.current.id}
    assert await post(world, stranger, wanted) == 0
    assert isinstance(await world.ask(browser), Session)


async def test_all_others_can_be_ended(world: World, browser: Browser) -> None:
    others = [Browser(PHONE), Browser()]
    for other in others:
        await world.sign_in(other)
    found = await mine(world, browser)
    assert await post(world, browser, {"csrf": found.csrf, "action": "end_others"}) == 2
    assert [await world.ask(other) for other in others] == ["session_revoked"] * 2
    assert isinstance(await world.ask(browser), Session)


@pytest.mark.parametrize(
    "headers",
    [
        {"accept": "*/*"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": origin(WIKI)},
        {"origin": f"https://{HOST}"},
        {"origin": origin(HOST), "sec_fetch_site": "cross-site"},
        {"origin": origin(HOST), "sec_fetch_site": "same-site"},
        {"origin": origin(HOST), "sec_fetch_site": "none"},
    ],
)
async def test_another_sites_page_changes_nothing(world: World, browser: Browser, headers: dict[str, str]) -> None:
    form = {"csrf": (await mine(world, browser)).csrf, "action": "end_others"}
    assert reason_of(await post(world, browser, form, **headers)) == "csrf_refused"
    facts = browser.facts(ME, method="POST", **headers)
    assert reason_of(await world.own.sign_out(facts, LAPTOP, form)) == "csrf_refused"
    assert isinstance(await world.ask(browser), Session)


async def test_a_form_without_this_browsers_token_changes_nothing(world: World, browser: Browser) -> None:
    second = Browser(PHONE)
    await world.sign_in(second)
    for token in ("", "x", (await mine(world, second)).csrf, "\ud800"):
        assert reason_of(await post(world, browser, {"csrf": token, "action": "end_others"})) == "csrf_refused"
    assert reason_of(await post(world, browser, {"action": "end_others"})) == "csrf_refused"


async def test_an_unknown_action_is_malformed(world: World, browser: Browser) -> None:
    token = (await mine(world, browser)).csrf
    assert reason_of(await post(world, browser, {"csrf": token, "action": "all"})) == "malformed_request"


async def test_nobody_is_nobody(world: World) -> None:
    assert reason_of(await world.own.mine(Browser().facts(ME), None)) == "login_required"
    unknown = Browser(None, {HOST: {SSO: random()}})
    assert reason_of(await world.own.mine(unknown.facts(ME), None)) == "login_required"
    tossed = unknown.facts(ME, cookie=f"{SSO}={random()}; {SSO}={random()}")
    assert reason_of(await world.own.mine(tossed, None)) == "cookie_ambiguous"


async def test_the_session_cookie_of_a_service_is_nothing_here(world: World, browser: Browser) -> None:
    thief = Browser(LAPTOP, {HOST: {SSO: next(iter(browser.jars[WIKI].values()))}})
    assert isinstance(await world.own.mine(thief.facts(ME), LAPTOP), Refusal)


async def test_signing_out_ends_the_session_here_first_then_at_the_issuer(world: World, browser: Browser) -> None:
    before = twin(browser)
    kept = await world.logins.tokens((await world.only_login()).id)
    form = {"csrf": (await mine(world, browser)).csrf}
    facts = browser.facts(f"https://{HOST}/.gateway/logout", method="POST", **OWN)
    way = await world.own.sign_out(facts, LAPTOP, form)
    assert isinstance(way, Redirect)
    assert way.cookies == (no_cookie(SSO),)
    assert way.location.startswith(f"{ISSUER}/end?")
    query = parse_qs(urlsplit(way.location).query)
    assert kept is not None
    assert query["id_token_hint"] == [kept[0].id_token]
    assert query["client_id"] == [CLIENT]
    assert query["post_logout_redirect_uri"] == [f"{origin(HOST)}/.gateway/logout"]
    assert await world.ask(browser) == "session_revoked"
    assert isinstance(await world.own.mine(before.facts(ME), LAPTOP), Refusal)


async def test_signing_out_works_here_when_the_issuer_is_down_or_has_no_such_page(
    world: World, browser: Browser
) -> None:
    world.provider.discovery["end_session_endpoint"] = "javascript:alert(1)"
    for directory in world.directories:
        directory._held = None
    form = {"csrf": (await mine(world, browser)).csrf}
    way = await world.own.sign_out(browser.facts(ME, method="POST", **OWN), LAPTOP, form)
    assert isinstance(way, Redirect)
    assert way.location == "/.gateway/logout"
    assert await world.ask(browser) == "session_revoked"
