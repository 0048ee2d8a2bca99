"""Signing in: the good way, and everything that must not pass for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from gateway.core.canonical import admit
from gateway.core.cookies import BINDING, SESSION, SSO, cookie
from gateway.core.navigation import Redirect, Resume
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Role, Session
from gateway.demo.idp.token_issuer import Key
from gateway.identity.login.flow import IssuerChoice, LoginCompleted
from tests.support.login_world import (
    CLIENT,
    HOST,
    ISSUER,
    LAPTOP,
    OTHER_ISSUER,
    PHONE,
    SHOP,
    WIKI,
    WIKI_ROUTE,
    Browser,
    World,
    origin,
    random,
    reason_of,
    twin,
)

PAGE_URL = f"https://{WIKI}/page?x=1"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, others=True)
    yield made
    await made.close()


@pytest.fixture
def browser() -> Browser:
    return Browser(LAPTOP)


async def refused(world: World, browser: Browser, **sent: str) -> str:
    """The reason why a sign-in is refused at its return; the person is not signed in afterwards."""
    outcome = await world.back(browser, world.provider.authorize(await world.to_issuer(browser, PAGE_URL), **sent))
    assert SSO not in browser.jars[HOST]
    assert not world.documents.of("login_session")
    return reason_of(outcome)


# ---- the good way ----


async def test_a_page_leads_to_the_issuer_and_back_to_itself(world: World, browser: Browser) -> None:
    start = await world.leave(browser, PAGE_URL)
    assert start.startswith(f"{origin(HOST)}/.gateway/login?held=")
    begun = await world.login.begin(browser.facts(start), LAPTOP)
    assert isinstance(begun, Redirect)
    browser.keep(HOST, begun.cookies)
    query = parse_qs(urlsplit(begun.location).query)
    assert begun.location.startswith(f"{ISSUER}/authorize?")
    assert query["redirect_uri"] == [f"{origin(HOST)}/.gateway/callback/id-example-com"]
    assert query["client_id"] == [CLIENT]
    assert "max_age" not in query
    granted = await world.back(browser, world.provider.authorize(begun.location))
    assert isinstance(granted, LoginCompleted)
    assert granted.redirect.location.startswith(f"{origin(WIKI)}/.gateway/session?ticket=")
    assert granted.login.identity.roles == (Role("staff", "org"),)
    arrived = await world.arrive(browser, granted.redirect.location)
    assert arrived == Redirect("/page?x=1", (cookie(SESSION, browser.jars[WIKI][SESSION]),))
    session = await world.ask(browser)
    assert isinstance(session, Session)
    assert session.bound_by == ("device",)
    assert session.id == granted.login.id


async def test_the_second_service_needs_no_second_sign_in(world: World, browser: Browser) -> None:
    await world.sign_in(browser)
    start = await world.leave(browser, f"https://{SHOP}/cart", Route("shop", SHOP))
    begun = await world.login.begin(browser.facts(start), LAPTOP)
    assert isinstance(begun, Redirect)
    assert begun.location.startswith(f"{origin(SHOP)}/.gateway/session?ticket=")
    assert world.provider.asked["authorization_code"] == 1
    assert isinstance(await world.arrive(browser, begun.location), Redirect)
    assert browser.jars[SHOP][SESSION] != browser.jars[WIKI][SESSION]
    assert isinstance(await world.ask(browser, f"https://{SHOP}/cart", Route("shop", SHOP)), Session)


async def test_a_form_and_its_body_survive_the_sign_in(world: World, browser: Browser) -> None:
    browser.jars[WIKI] = {"theme": "dark"}
    sent = {"origin": origin(WIKI), "sec_fetch_site": "same-origin", "content_type": "text/plain"}
    outcome = await world.sign_in(browser, f"https://{WIKI}/save", method="POST", body=b"a=1&b=\xff", **sent)
    assert isinstance(outcome, Resume)
    assert outcome.body == b"a=1&b=\xff"
    facts = admit(outcome.raw, Peer("192.0.2.7", 4711, sni=WIKI))
    assert isinstance(facts, RequestFacts)
    assert (facts.method, facts.target, facts.content_length) == ("POST", "/save", 7)
    assert facts.header("content-type") == "text/plain"
    names = {pair.partition("=")[0] for pair in (facts.header("cookie") or "").split("; ")}
    assert names == {"theme", SESSION}
    assert not isinstance(await world.reader.read(facts, WIKI_ROUTE), Refusal)


async def test_a_fresh_sign_in_is_asked_for_even_with_a_session(world: World, browser: Browser) -> None:
    await world.sign_in(browser)
    before = twin(browser)
    world.clock.pass_(300)
    way = await world.login.start(browser.facts(PAGE_URL), WIKI_ROUTE, b"", fresh=True)
    assert isinstance(way, Redirect)
    begun = await world.login.begin(browser.facts(way.location), LAPTOP)
    assert isinstance(begun, Redirect)
    query = parse_qs(urlsplit(begun.location).query)
    assert (query["prompt"], query["max_age"]) == (["login"], ["0"])
    world.clock.pass_(60)
    granted = await world.back(browser, world.provider.authorize(begun.location))
    assert isinstance(granted, LoginCompleted)
    assert browser.jars[HOST][SSO] != before.jars[HOST][SSO]
    assert await world.ask(before) == "session_revoked"


async def test_an_issuer_that_ignores_a_fresh_sign_in_is_not_believed(world: World, browser: Browser) -> None:
    way = await world.login.start(browser.facts(PAGE_URL), WIKI_ROUTE, b"", fresh=True)
    assert isinstance(way, Redirect)
    begun = await world.login.begin(browser.facts(way.location), LAPTOP)
    assert isinstance(begun, Redirect)
    browser.keep(HOST, begun.cookies)
    world.provider.claims["auth_time"] = int(world.clock()) - 60
    assert reason_of(await world.back(browser, world.provider.authorize(begun.location))) == "auth_stale"


async def test_of_several_issuers_the_person_chooses_one_that_the_service_accepts(two: World, browser: Browser) -> None:
    start = await two.leave(browser, PAGE_URL)
    choice = await two.login.begin(browser.facts(start), LAPTOP)
    assert isinstance(choice, IssuerChoice)
    assert [issuer for issuer, _ in choice.ways] == [ISSUER, OTHER_ISSUER]
    chosen = await two.login.begin(browser.facts(f"https://{HOST}{choice.ways[1][1]}"), LAPTOP)
    assert isinstance(chosen, Redirect)
    assert chosen.location.startswith(OTHER_ISSUER)
    only = Route("wiki", WIKI, issuers=(OTHER_ISSUER,))
    begun = await two.login.begin(browser.facts(await two.leave(browser, PAGE_URL, only)), LAPTOP)
    assert isinstance(begun, Redirect)
    assert begun.location.startswith(OTHER_ISSUER)
    wrong = f"{await two.leave(browser, PAGE_URL, only)}&issuer=id-example-com"
    assert reason_of(await two.login.begin(browser.facts(wrong), LAPTOP)) == "login_failed"


async def test_nobody_is_sent_anywhere_when_no_issuer_fits(world: World, browser: Browser) -> None:
    route = Route("wiki", WIKI, issuers=("https://none",))
    assert reason_of(await world.login.start(browser.facts(PAGE_URL), route, b"")) == "login_required"


async def test_two_tabs_may_sign_in_at_once(world: World, browser: Browser) -> None:
    first = await world.to_issuer(browser, f"https://{WIKI}/one")
    second = await world.to_issuer(browser, f"https://{WIKI}/two")
    one = await world.back(browser, world.provider.authorize(first))
    two = await world.back(browser, world.provider.authorize(second))
    assert isinstance(one, LoginCompleted)
    assert isinstance(two, LoginCompleted)
    # The second sign-in ended the first one's session: its tab goes round once more and finds the second's.
    again = await world.arrive(browser, one.redirect.location)
    assert isinstance(again, Redirect)
    onward = await world.login.begin(browser.facts(again.location), LAPTOP)
    assert isinstance(onward, Redirect)
    assert await world.arrive(browser, onward.location) == Redirect(
        "/one", (cookie(SESSION, browser.jars[WIKI][SESSION]),)
    )


# ---- the browser that began it ----


async def test_a_callback_in_another_browser_is_refused(world: World, browser: Browser) -> None:
    """Login CSRF: somebody makes a victim's browser finish his own sign-in."""
    answer = world.provider.authorize(await world.to_issuer(browser, PAGE_URL))
    assert reason_of(await world.back(Browser(LAPTOP), answer)) == "login_other_browser"
    victim = Browser(LAPTOP)
    await world.to_issuer(victim, PAGE_URL)
    answer = world.provider.authorize(await world.to_issuer(browser, PAGE_URL))
    assert reason_of(await world.back(victim, answer)) == "login_other_browser"
    assert world.provider.asked["authorization_code"] == 0


async def test_a_ticket_in_another_browser_is_refused(world: World, browser: Browser) -> None:
    granted = await world.back(browser, world.provider.authorize(await world.to_issuer(browser, PAGE_URL)))
    assert isinstance(granted, LoginCompleted)
    victim = Browser(LAPTOP)
    await world.leave(victim, PAGE_URL)
    assert reason_of(await world.arrive(victim, granted.redirect.location)) == "login_other_browser"
    assert SESSION not in victim.jars[WIKI]
    assert reason_of(await world.arrive(browser, granted.redirect.location)) == "login_expired"


async def test_a_held_request_of_somebody_else_gives_its_maker_nothing(world: World, browser: Browser) -> None:
    attacker = Browser()
    start = await world.leave(attacker, PAGE_URL)
    await world.sign_in(browser)
    begun = await world.login.begin(browser.facts(start), LAPTOP)
    assert isinstance(begun, Redirect)
    assert reason_of(await world.arrive(browser, begun.location)) == "login_other_browser"
    assert reason_of(await world.arrive(attacker, begun.location)) == "login_expired"


async def test_every_id_is_new_after_a_sign_in(world: World, browser: Browser) -> None:
    """Session fixation: what a browser had before is worth nothing after."""
    planted = random()
    browser.jars[WIKI], browser.jars[HOST] = {SESSION: planted}, {SSO: planted}
    await world.sign_in(browser)
    assert browser.jars[WIKI][SESSION] not in {planted, browser.jars[HOST][SSO]}
    assert browser.jars[HOST][SSO] != planted
    assert await world.ask(Browser(LAPTOP, {WIKI: {SESSION: planted}})) == "login_required"


async def test_a_new_sign_in_ends_the_one_before(world: World, browser: Browser) -> None:
    await world.sign_in(browser)
    before = twin(browser)
    del browser.jars[WIKI]
    world.provider.claims["sub"] = "bob"
    way = await world.login.start(browser.facts(PAGE_URL), WIKI_ROUTE, b"", fresh=True)
    assert isinstance(way, Redirect)
    browser.keep(WIKI, way.cookies)
    begun = await world.login.begin(browser.facts(way.location), LAPTOP)
    assert isinstance(begun, Redirect)
    assert isinstance(await world.back(browser, world.provider.authorize(begun.location)), LoginCompleted)
    assert await world.ask(before) == "session_revoked"


# ---- once ----


async def test_an_answer_is_taken_once(world: World, browser: Browser) -> None:
    answer = world.provider.authorize(await world.to_issuer(browser, PAGE_URL))
    assert isinstance(await world.back(browser, answer), LoginCompleted)
    assert reason_of(await world.back(browser, answer)) == "login_expired"


async def test_a_code_that_was_used_is_refused_by_the_issuer_and_here(world: World, browser: Browser) -> None:
    first = world.provider.authorize(await world.to_issuer(browser, PAGE_URL))
    assert isinstance(await world.back(browser, first), LoginCompleted)
    code = parse_qs(urlsplit(first).query)["code"][0]
    state = parse_qs(urlsplit(first).query)["state"][0]
    replay = f"{origin(HOST)}/.gateway/callback/id-example-com?code={code}&state={state}"
    assert reason_of(await world.back(browser, replay)) == "login_expired"
    other = Browser(LAPTOP)
    begun = parse_qs(urlsplit(await world.to_issuer(other, PAGE_URL)).query)
    injected = f"{origin(HOST)}/.gateway/callback/id-example-com?code={code}&state={begun['state'][0]}"
    assert reason_of(await world.back(other, injected)) == "login_failed"


async def test_a_stolen_code_does_not_fit_another_sign_in(world: World, browser: Browser) -> None:
    """Code injection: PKCE ties the code to the transaction."""
    stolen = parse_qs(urlsplit(world.provider.authorize(await world.to_issuer(Browser(), PAGE_URL))).query)["code"][0]
    mine = parse_qs(urlsplit(await world.to_issuer(browser, PAGE_URL)).query)["state"][0]
    answer = f"{origin(HOST)}/.gateway/callback/id-example-com?code={stolen}&state={mine}"
    assert reason_of(await world.back(browser, answer)) == "login_failed"


async def test_a_ticket_is_taken_once_and_soon(world: World, browser: Browser) -> None:
    granted = await world.back(browser, world.provider.authorize(await world.to_issuer(browser, PAGE_URL)))
    assert isinstance(granted, LoginCompleted)
    thief = twin(browser)
    assert isinstance(await world.arrive(browser, granted.redirect.location), Redirect)
    assert reason_of(await world.arrive(thief, granted.redirect.location)) == "login_expired"
    late = await world.login.begin(browser.facts(await world.leave(browser, PAGE_URL)), LAPTOP)
    assert isinstance(late, Redirect)
    world.clock.pass_(61)
    assert reason_of(await world.arrive(browser, late.location)) == "login_expired"


async def test_a_ticket_for_another_host_is_refused(world: World, browser: Browser) -> None:
    granted = await world.back(browser, world.provider.authorize(await world.to_issuer(browser, PAGE_URL)))
    assert isinstance(granted, LoginCompleted)
    browser.jars[SHOP] = dict(browser.jars[WIKI])
    there = granted.redirect.location.replace(WIKI, SHOP)
    assert reason_of(await world.arrive(browser, there)) == "login_failed"


async def test_a_sign_in_that_takes_too_long_is_over(world: World, browser: Browser) -> None:
    answer = world.provider.authorize(await world.to_issuer(browser, PAGE_URL))
    world.clock.pass_(601)
    assert reason_of(await world.back(browser, answer)) == "login_expired"
    start = await world.leave(browser, PAGE_URL)
    world.clock.pass_(901)
    assert reason_of(await world.login.begin(browser.facts(start), LAPTOP)) == "login_expired"


# ---- the issuer that was asked ----


async def test_an_answer_at_another_issuers_address_is_refused(two: World, browser: Browser) -> None:
    """Mix-up: each issuer has a redirect URI of its own."""
    start = await two.leave(browser, PAGE_URL)
    begun = await two.login.begin(browser.facts(f"{start}&issuer=other-example-com"), LAPTOP)
    assert isinstance(begun, Redirect)
    browser.keep(HOST, begun.cookies)
    answer = two.other.authorize(begun.location)
    swapped = answer.replace("callback/other-example-com", "callback/id-example-com")
    assert reason_of(await two.back(browser, swapped)) == "login_failed"
    assert not two.provider.asked


@pytest.mark.parametrize("iss", [OTHER_ISSUER, "", f"{ISSUER}/"])
async def test_an_answer_that_names_another_issuer_is_refused(world: World, browser: Browser, iss: str) -> None:
    assert await refused(world, browser, iss=iss) == "login_failed"
    assert not world.provider.asked


async def test_an_issuer_that_names_itself_must_do_so_every_time(world: World, browser: Browser) -> None:
    world.provider.discovery["authorization_response_iss_parameter_supported"] = True
    assert await refused(world, browser) == "login_failed"
    answer = world.provider.authorize(await world.to_issuer(browser, PAGE_URL), iss=ISSUER)
    assert isinstance(await world.back(browser, answer), LoginCompleted)


async def test_an_unknown_issuers_address_is_refused(world: World, browser: Browser) -> None:
    answer = world.provider.authorize(await world.to_issuer(browser, PAGE_URL))
    assert reason_of(await world.back(browser, answer, slug="nobody")) == "login_failed"


async def test_what_the_issuer_refuses_is_said_in_its_own_word(world: World, browser: Browser) -> None:
    for error, code in (
        ("access_denied", "login_denied"),
        ("server_error", "login_failed"),
        ("<b>\u00e4", "login_failed"),
    ):
        state = parse_qs(urlsplit(await world.to_issuer(browser, PAGE_URL)).query)["state"][0]
        query = urlencode({"error": error, "state": state})
        outcome = await world.back(browser, f"{origin(HOST)}/.gateway/callback/id-example-com?{query}")
        assert reason_of(outcome) == code
        assert isinstance(outcome, Refusal)
        assert outcome.detail.isascii()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=a",
        "state={state}",
        "code=a&state=short",
        "code=a&code=b&state={state}",
        "code=a&state={state}&state={state}",
        "code=a&error=b&state={state}",
        "code=a&state={state}&iss=a&iss=b",
    ],
)
async def test_an_ambiguous_answer_is_malformed(world: World, browser: Browser, query: str) -> None:
    state = parse_qs(urlsplit(await world.to_issuer(browser, PAGE_URL)).query)["state"][0]
    url = f"{origin(HOST)}/.gateway/callback/id-example-com?{query.format(state=state)}"
    assert reason_of(await world.back(browser, url)) == "malformed_request"


@pytest.mark.parametrize("code", ["", "%20", "%00", "a" * 4097, "%C3%A4"])
async def test_a_code_of_the_wrong_form_is_never_sent_on(world: World, browser: Browser, code: str) -> None:
    state = parse_qs(urlsplit(await world.to_issuer(browser, PAGE_URL)).query)["state"][0]
    url = f"{origin(HOST)}/.gateway/callback/id-example-com?code={code}&state={state}"
    assert reason_of(await world.back(browser, url)) == "login_failed"
    assert not world.provider.asked


# ---- the id token ----


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": OTHER_ISSUER}, "login_failed"),
        ({"aud": ["somebody"]}, "login_failed"),
        ({"aud": []}, "login_failed"),
        ({"aud": None}, "login_failed"),
        ({"azp": None}, "login_failed"),
        ({"azp": "somebody"}, "login_failed"),
        ({"aud": CLIENT, "azp": "somebody"}, "login_failed"),
        ({"nonce": None}, "login_failed"),
        ({"nonce": "wrong"}, "login_failed"),
        ({"nonce": 7}, "login_failed"),
        ({"exp": 1_799_999_990}, "login_failed"),
        ({"exp": None}, "login_failed"),
        ({"iat": None}, "login_failed"),
        ({"iat": 1_800_000_010}, "login_failed"),
        ({"iat": 1_799_999_600}, "login_failed"),
        ({"nbf": 1_800_000_010}, "login_failed"),
        ({"sub": None}, "login_failed"),
        ({"sub": ""}, "login_failed"),
        ({"sub": 7}, "login_failed"),
        ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "login_failed"),
        ({"at_hash": 7}, "login_failed"),
        ({"auth_time": 1_800_000_010}, "login_failed"),
        ({"auth_time": True}, "login_failed"),
        ({"amr": "pwd"}, "login_failed"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, "login_failed"),
        ({"amr": []}, "amr_missing"),
        ({"amr": None}, "amr_missing"),
    ],
)
async def test_an_id_token_that_is_not_exactly_right_is_refused(
    world: World, browser: Browser, changes: dict[str, Any], code: str
) -> None:
    world.provider.claims = changes
    assert await refused(world, browser) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": CLIENT, "azp": None},
        {"aud": [CLIENT], "azp": None},
        {"at_hash": None},
        {"exp": 1_799_999_996},
        {"sid": None},
    ],
)
async def test_what_the_standard_leaves_open_is_taken(world: World, browser: Browser, changes: dict[str, Any]) -> None:
    world.provider.claims = changes
    await world.sign_in(browser)
    assert isinstance(await world.ask(browser), Session)


@pytest.mark.parametrize(
    "headers",
    [{"alg": "none"}, {"kid": "other"}, {"typ": "at+jwt"}, {"typ": "logout+jwt"}, {"jwk": {}}, {"crit": ["b64"]}],
)
async def test_an_id_token_with_another_header_is_refused(
    world: World, browser: Browser, headers: dict[str, Any]
) -> None:
    if headers.get("alg") == "none":
        world.provider.answer["id_token"] = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUuY29tIn0."
    else:
        world.provider.headers = headers
    assert await refused(world, browser) == "login_failed"


async def test_a_signature_of_another_key_is_refused(world: World, browser: Browser) -> None:
    url = await world.to_issuer(browser, PAGE_URL)
    foreign = Key()
    foreign.kid = world.provider.key.kid
    world.provider.key = foreign
    assert reason_of(await world.back(browser, world.provider.authorize(url))) == "login_failed"


@pytest.mark.parametrize(
    "answer",
    [
        {"id_token": None},
        {"id_token": "x"},
        {"id_token": 7},
        {"id_token": "a" * 40_000},
        {"access_token": None},
        {"access_token": "\u00e4"},
        {"refresh_token": 7},
        {"token_type": "DPoP"},
        {"token_type": None},
        {"expires_in": -1},
        {"expires_in": True},
        {"expires_in": "900"},
    ],
)
async def test_a_token_answer_of_the_wrong_form_is_refused(
    world: World, browser: Browser, answer: dict[str, Any]
) -> None:
    world.provider.answer = answer
    assert await refused(world, browser) == "login_failed"


async def test_an_issuer_that_cannot_be_asked_signs_nobody_in(world: World, browser: Browser) -> None:
    for status in (500, 302, 401, 404):
        world.provider.status = status
        assert await refused(world, browser) == "issuer_unavailable"
    world.provider.status = 400
    assert await refused(world, browser) == "issuer_unavailable"
    url = await world.to_issuer(browser, PAGE_URL)
    answer = world.provider.authorize(url)
    world.provider.is_down = True
    assert reason_of(await world.back(browser, answer)) == "issuer_unavailable"


async def test_max_age_is_asked_for_and_enforced(tmp_path: Path, browser: Browser) -> None:
    world = World(tmp_path, max_age_s=300)
    assert parse_qs(urlsplit(await world.to_issuer(browser, PAGE_URL)).query)["max_age"] == ["300"]
    for auth_time in (None, int(world.clock()) - 306):
        world.provider.claims["auth_time"] = auth_time
        assert await refused(world, browser) == "auth_stale"
    world.provider.claims["auth_time"] = int(world.clock()) - 304
    await world.sign_in(browser)
    await world.close()


async def test_an_empty_amr_is_accepted_where_it_is_configured_and_proves_nothing(
    tmp_path: Path, browser: Browser
) -> None:
    world = World(tmp_path, empty_amr="accept")
    world.provider.claims = {"amr": None}
    await world.sign_in(browser)
    assert (await world.only_login()).identity.amr == ()
    other = Browser()
    world.provider.claims = {"amr": [], "auth_time": None}
    answer = world.provider.authorize(await world.to_issuer(other, PAGE_URL))
    assert reason_of(await world.back(other, answer)) == "amr_missing"
    await world.close()


# ---- where one is sent ----


@pytest.mark.parametrize("name", ["next", "return_to", "redirect_uri", "target", "url"])
async def test_no_address_is_taken_from_a_query(world: World, browser: Browser, name: str) -> None:
    start = await world.leave(browser, PAGE_URL)
    evil = browser.facts(f"{start}&{name}=https://evil.example")
    assert reason_of(await world.login.begin(evil, LAPTOP)) == "malformed_request"
    sent = {} if name == "redirect_uri" else {name: "https://evil.example"}
    granted = await world.back(browser, world.provider.authorize(await world.to_issuer(browser, PAGE_URL), **sent))
    assert isinstance(granted, LoginCompleted)
    assert granted.redirect.location.startswith(origin(WIKI))
    arrived = await world.arrive(browser, f"{granted.redirect.location}&{name}=https://evil.example")
    assert reason_of(arrived) == "malformed_request"


@pytest.mark.parametrize("query", ["", "?held=", "?held=x", "?held={id}&held={id}", "?issuer=id-example-com"])
async def test_a_start_without_one_held_request_is_refused(world: World, browser: Browser, query: str) -> None:
    facts = browser.facts(f"https://{HOST}/.gateway/login{query.format(id=random())}")
    assert reason_of(await world.login.begin(facts, LAPTOP)) in {"malformed_request", "login_expired"}


@pytest.mark.parametrize("query", ["", "?ticket=", "?ticket=x", "?ticket={id}&ticket={id}", "?x={id}"])
async def test_an_arrival_without_one_ticket_is_refused(world: World, browser: Browser, query: str) -> None:
    facts = browser.facts(f"https://{WIKI}/.gateway/session{query.format(id=random())}")
    assert reason_of(await world.handover.arrive(facts, LAPTOP)) == "malformed_request"


async def test_an_own_page_needs_no_ticket(world: World, browser: Browser) -> None:
    way = await world.login.start(browser.facts(f"https://{HOST}/.gateway/me"), None, b"")
    assert isinstance(way, Redirect)
    browser.keep(HOST, way.cookies)
    begun = await world.login.begin(browser.facts(way.location), LAPTOP)
    assert isinstance(begun, Redirect)
    granted = await world.back(browser, world.provider.authorize(begun.location))
    assert isinstance(granted, LoginCompleted)
    assert granted.redirect.location == "/.gateway/me"


# ---- cookies ----


@pytest.mark.parametrize("name", [BINDING, SESSION])
async def test_two_cookies_of_a_name_are_not_believed_at_an_arrival(world: World, browser: Browser, name: str) -> None:
    granted = await world.back(browser, world.provider.authorize(await world.to_issuer(browser, PAGE_URL)))
    assert isinstance(granted, LoginCompleted)
    sent = f"{BINDING}={browser.jars[WIKI][BINDING]}; {name}={random()}; {name}={random()}"
    facts = browser.facts(granted.redirect.location, cookie=sent)
    assert reason_of(await world.handover.arrive(facts, LAPTOP)) == "cookie_ambiguous"


async def test_two_binding_cookies_are_not_believed_at_a_return(world: World, browser: Browser) -> None:
    answer = world.provider.authorize(await world.to_issuer(browser, PAGE_URL))
    sent = f"{BINDING}={browser.jars[HOST][BINDING]}; {BINDING}={random()}"
    outcome = await world.login.callback(browser.facts(answer, cookie=sent), LAPTOP, "id-example-com")
    assert reason_of(outcome) == "cookie_ambiguous"


async def test_an_oversized_binding_cookie_is_no_binding(world: World, browser: Browser) -> None:
    answer = world.provider.authorize(await world.to_issuer(browser, PAGE_URL))
    sent = f"{BINDING}={browser.jars[HOST][BINDING]}{'a' * 4000}"
    outcome = await world.login.callback(browser.facts(answer, cookie=sent), LAPTOP, "id-example-com")
    assert reason_of(outcome) == "login_other_browser"


# ---- the device ----


async def test_a_sign_in_over_a_device_arrives_over_that_device(world: World, browser: Browser) -> None:
    for device in (None, PHONE):
        granted = await world.back(browser, world.provider.authorize(await world.to_issuer(browser, PAGE_URL)))
        assert isinstance(granted, LoginCompleted)
        browser.device = device
        assert reason_of(await world.arrive(browser, granted.redirect.location)) == "binding_mismatch"
        assert reason_of(await world.logins.live(granted.login.id)) == "session_revoked"
        browser = Browser(LAPTOP)


async def test_the_sign_in_cookie_on_another_device_ends_the_session(world: World, browser: Browser) -> None:
    await world.sign_in(browser)
    thief = twin(browser, device=None)
    start = await world.leave(thief, f"https://{SHOP}/", Route("shop", SHOP))
    assert reason_of(await world.login.begin(thief.facts(start), None)) == "binding_mismatch"
    assert await world.ask(browser) == "session_revoked"


# ---- nothing shows ----


async def test_no_secret_is_in_a_repr_or_in_clear_in_a_key(world: World, browser: Browser) -> None:
    url = await world.to_issuer(browser, PAGE_URL)
    granted = await world.back(browser, world.provider.authorize(url))
    assert isinstance(granted, LoginCompleted)
    secrets = [value for jar in browser.jars.values() for value in jar.values()]
    secrets += [parse_qs(urlsplit(url).query)["state"][0], urlsplit(granted.redirect.location).query[7:]]
    shown = repr(granted) + repr(list(world.documents.kept))
    assert not [value for value in secrets if value in shown]
    kept = await world.logins.tokens(granted.login.id)
    assert kept is not None
    assert kept[0].access_token not in repr(kept)
