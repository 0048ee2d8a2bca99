"""Signing in: the good way, and everything that must not pass for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from gateway.core.cookies import BINDING, SESSION
from gateway.core.navigation import Redirect
from gateway.core.reasons import Refusal
from gateway.core.routes import Route
from gateway.core.subject import Session
from gateway.demo.idp.token_issuer import Key
from gateway.identity.login.flow import LoginCompleted
from tests.support.login_flow_world import PAGE_URL, refused
from tests.support.login_world import (
    CLIENT,
    HOST,
    ISSUER,
    LAPTOP,
    OTHER_ISSUER,
    PHONE,
    SHOP,
    WIKI,
    Browser,
    World,
    origin,
    random,
    reason_of,
    twin,
)


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


async def test_a_life_of_a_token_that_is_written_as_text_is_a_number(world: World, browser: Browser) -> None:
    world.provider.answer = {"expires_in": "900"}
    await world.sign_in(browser)
    fresh_until = (await world.only_login()).fresh_until
    assert fresh_until is not None
    assert 0 < fresh_until - world.clock() <= 900


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
        {"expires_in": "soon"},
        {"expires_in": "0"},
        {"expires_in": "9" * 13},
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
