"""Signing in: the good way, and everything that must not pass for it."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from gateway.core.canonical import admit
from gateway.core.cookies import SESSION, SSO, cookie
from gateway.core.navigation import Redirect, Resume
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Role, Session
from gateway.identity.login.flow import IssuerChoice, LoginCompleted
from tests.support.login_flow_world import PAGE_URL
from tests.support.login_world import (
    CLIENT,
    HOST,
    ISSUER,
    LAPTOP,
    OTHER_ISSUER,
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
