"""The session cookie: what it opens, what ends it, what it is bound to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.cookies import SESSION, SSO, sets_ours, without_ours
from gateway.core.reasons import Refusal
from gateway.core.routes import Route
from gateway.core.subject import Identity, Session
from gateway.identity.bearer.sessions import BearerSessions, session_id
from gateway.identity.sessions.cookies import BinderByKind, BrowserBinder
from gateway.identity.sessions.login_sessions import LoginSession
from tests.support.login_world import (
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
    random,
    twin,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def browser(world: World) -> Browser:
    """Signed in, with a device."""
    made = Browser(LAPTOP)
    await world.sign_in(made)
    return made


# ---- the cookie ----


async def test_without_a_cookie_it_is_nobodys_request(world: World) -> None:
    assert await world.ask(Browser(LAPTOP)) is None
    assert await world.ask(Browser(LAPTOP, {WIKI: {"theme": "dark", "gateway-session": random()}})) is None


@pytest.mark.parametrize("value", ["", "a", "a" * 44, "a" * 4_096, f'"{"a" * 43}"', "a" * 42 + "=", "a" * 42 + "%"])
async def test_a_cookie_that_is_none_of_ours_is_no_session(world: World, value: str) -> None:
    assert await world.ask(Browser(LAPTOP), cookie=f"{SESSION}={value}") == "login_required"


async def test_an_unknown_cookie_is_no_session(world: World) -> None:
    assert await world.ask(Browser(LAPTOP, {WIKI: {SESSION: random()}})) == "login_required"


async def test_an_oversized_header_of_cookies_is_no_session(world: World, browser: Browser) -> None:
    padded = f"{SESSION}={browser.jars[WIKI][SESSION]}" + "x" * 7_000
    assert await world.ask(browser, cookie=padded) == "login_required"


@pytest.mark.parametrize(
    "order", ["{good}; {bad}", "{bad}; {good}", "{good}; {good}", "{good}; __Host-gateway-session"]
)
async def test_a_cookie_tossed_beside_the_good_one_makes_both_unbelievable(
    world: World, browser: Browser, order: str
) -> None:
    sent = order.format(good=f"{SESSION}={browser.jars[WIKI][SESSION]}", bad=f"{SESSION}={random()}")
    assert await world.ask(browser, cookie=sent) == "cookie_ambiguous"


async def test_a_sibling_domains_cookie_of_a_like_name_is_not_ours(world: World, browser: Browser) -> None:
    good = f"{SESSION}={browser.jars[WIKI][SESSION]}"
    for name in ("__host-gateway-session", "gateway-session", "__Secure-gateway-session", "__Host-gateway-sessions"):
        assert isinstance(await world.ask(browser, cookie=f"{name}={random()}; {good}"), Session)


async def test_the_store_never_holds_a_cookies_value(world: World, browser: Browser) -> None:
    kept = repr(world.documents.kept)
    assert not [value for jar in browser.jars.values() for value in jar.values() if value in kept]


async def test_a_cookie_on_another_host_is_stolen(world: World, browser: Browser) -> None:
    thief = Browser(LAPTOP, {SHOP: dict(browser.jars[WIKI])})
    assert await world.ask(thief, f"https://{SHOP}/", Route("shop", SHOP)) == "binding_mismatch"
    assert await world.ask(browser) == "session_revoked"


async def test_the_sign_in_cookie_opens_no_service(world: World, browser: Browser) -> None:
    thief = Browser(LAPTOP, {WIKI: {SESSION: browser.jars[HOST][SSO]}})
    assert await world.ask(thief) == "binding_mismatch"


async def test_an_issuer_the_service_does_not_accept_means_signing_in_again(world: World, browser: Browser) -> None:
    assert await world.ask(browser, route=Route("wiki", WIKI, issuers=(OTHER_ISSUER,))) == "login_required"


def test_our_cookies_stay_from_upstreams() -> None:
    sent = [f"a=1; {SESSION}=x; b=2", f"{SSO}=x", "__HOST-GATEWAY-login=x;c=3", SESSION]
    assert without_ours(sent) == ["a=1; b=2", "c=3"]
    assert sets_ours(f"{SESSION}=x; Path=/")
    assert sets_ours(" __host-gateway-anything =x")
    assert not sets_ours("theme=__Host-gateway-session")
    # Nameless, or named by what a browser may trim: both come back as something else than was said.
    for odd in (
        f"={SESSION}=x",
        f"{SESSION}",
        f"\u00c3{SESSION}=x",
        f"\x0b{SESSION}=x",
        f"\xa0{SESSION}=x",
        "; Path=/",
        "",
    ):
        assert sets_ours(odd)


def test_every_byte_of_other_cookies_stays_as_it_came() -> None:
    for text in ("a=\xe9\xa0", "a=\xa0 ;b=\x85", 'a="x, y";;b ; c', " odd name=1;=nameless; \xff", "a=b=c;  d"):
        assert without_ours([text]) == [text]
    assert without_ours([f"a=\xa0;{SESSION}=x; b =\x85"]) == ["a=\xa0; b =\x85"]
    assert without_ours([f" {SESSION}=x; b=\xa0"]) == ["b=\xa0"]
    assert without_ours(["; ", f"{SESSION}=x;"]) == []


def test_odd_names_of_other_cookies_pass() -> None:
    for odd in ("na\xefve=1; Path=/", "a b=1", "=nameless", "alone", "\xe4=1", "a[b]=(1)"):
        assert not sets_ours(odd)


@pytest.mark.parametrize(
    ("origin", "outcome"),
    [
        (f"https://{WIKI}", None),
        ("https://other.corp.example", None),
        ("https://evil.example", "csrf_refused"),
        (f"https://{WIKI}:8443", "csrf_refused"),
        (f"http://{WIKI}", "csrf_refused"),
        ("null", "csrf_refused"),
    ],
)
async def test_another_sites_page_opens_no_websocket(
    world: World, browser: Browser, origin: str, outcome: str | None
) -> None:
    route = Route("wiki", WIKI, origins=frozenset({"https://other.corp.example"}))
    opens = {"connection": "upgrade", "upgrade": "websocket", "sec_websocket_key": "x", "sec_websocket_version": "13"}
    facts = browser.facts(f"https://{WIKI}/ws", origin=origin, **opens)
    assert facts.protocol == "websocket"
    found = await world.reader.read(facts, route)
    assert (found.reason if isinstance(found, Refusal) else None) == outcome


# ---- limits ----


async def test_a_session_is_over_when_it_is_idle(world: World, browser: Browser) -> None:
    for _ in range(3):
        world.provider.life_s = 86_400
        world.clock.pass_(1_700)
        assert isinstance(await world.ask(browser), Session)
    world.clock.pass_(1_801)
    assert await world.ask(browser) == "session_expired"


async def test_a_session_is_over_at_its_absolute_limit_however_busy(world: World, browser: Browser) -> None:
    for _ in range(42):
        world.clock.pass_(1_000)
        assert isinstance(await world.ask(browser), Session)
    world.clock.pass_(1_201)
    assert await world.ask(browser) == "session_expired"
    world.clock.pass_(4_000)
    assert await world.ask(browser) == "login_required"


async def test_use_is_written_at_most_once_a_minute(world: World, browser: Browser) -> None:
    await world.ask(browser)
    before = dict(world.documents.kept)
    world.clock.pass_(59)
    await world.ask(browser)
    assert world.documents.kept == before
    world.clock.pass_(2)
    await world.ask(browser)
    assert world.documents.kept != before


async def test_a_zero_log_route_lists_nothing_and_writes_in_quarters_of_the_idle_limit(world: World) -> None:
    route = Route("shop", WIKI, plane="user")
    made = Browser(LAPTOP)
    await world.sign_in(made, route=route)
    before = dict(world.documents.kept)
    assert (await world.only_login()).agent == ""
    world.clock.pass_(440)
    assert isinstance(await world.ask(made, route=route), Session)
    assert world.documents.kept == before
    world.clock.pass_(20)
    assert isinstance(await world.ask(made, route=route), Session)
    assert world.documents.kept != before
    assert await world.store.sessions() == []


async def test_a_session_on_a_staff_route_is_listed(world: World, browser: Browser) -> None:
    session = await world.ask(browser)
    (record,) = await world.store.sessions()
    assert (record.id, record.identity, record.device_id) == (session.id, "ada@example.com", "laptop")
    assert record.expires_at == session.created_at + 43_200
    world.clock.pass_(61)
    await world.ask(browser)
    assert (await world.store.sessions())[0].last_seen_at == world.clock()


# ---- the end ----


async def test_a_revoked_session_ends_everywhere_at_its_next_use(world: World, browser: Browser) -> None:
    session = await world.ask(browser)
    await world.store.revoke_session(session.id, world.clock(), "by the operator")
    assert await world.ask(browser) == "session_revoked"
    start = await world.leave(browser, f"https://{SHOP}/", Route("shop", SHOP))
    assert (await world.login.begin(browser.facts(start), LAPTOP)).location.startswith(ISSUER)  # type: ignore[union-attr]


async def test_the_issuers_sid_ends_its_sessions(world: World, browser: Browser) -> None:
    assert await world.logins.end_login_sessions(ISSUER, sid="other", why="logout") == 0
    assert await world.logins.end_login_sessions(OTHER_ISSUER, sid="sid-1", why="logout") == 0
    assert await world.logins.end_login_sessions(ISSUER, sid="sid-1", subject="bob", why="logout") == 0
    assert isinstance(await world.ask(browser), Session)
    assert await world.logins.end_login_sessions(ISSUER, sid="sid-1", why="logout") == 1
    assert await world.ask(browser) == "session_revoked"
    assert await world.logins.end_login_sessions(ISSUER, sid="sid-1", why="logout") == 0
    assert not world.documents.of("tokens")


async def test_a_subject_ends_all_its_sessions_and_bearers(world: World, browser: Browser) -> None:
    world.provider.claims["sid"] = "sid-2"
    second = Browser(PHONE)
    await world.sign_in(second)
    bearer = Identity(ISSUER, "ada", "jwt", "V2_7", world.clock() + 600)
    bearers = BearerSessions(world.store, world.clock)
    assert isinstance(await bearers.bind(bearer, None, second.facts(f"https://{WIKI}/"), WIKI_ROUTE), Session)
    await world.ask(browser)
    assert await world.logins.end_login_sessions(ISSUER, subject="bob", why="locked") == 0
    assert await world.logins.end_login_sessions(ISSUER, subject="ada", why="locked") == 3
    assert [await world.ask(browser), await world.ask(second)] == ["session_revoked"] * 2
    record = await world.store.session(session_id(ISSUER, "ada", "V2_7"))
    assert record is not None
    assert record.revoked_why == "locked"


async def test_who_has_signed_in_since_is_not_signed_out_by_what_was_before(world: World, browser: Browser) -> None:
    """A forced change of the password comes a moment before the sign-in that it belongs to is complete."""
    changed_at = world.clock() + 30.4
    world.clock.pass_(30.9)
    world.provider.claims["sid"] = "sid-2"
    second = Browser(PHONE)
    await world.sign_in(second)
    assert await world.logins.end_login_sessions(ISSUER, subject="ada", why="changed", before=changed_at) == 1
    assert await world.ask(browser) == "session_revoked"
    assert isinstance(await world.ask(second), Session)
    assert await world.logins.end_login_sessions(ISSUER, subject="ada", why="locked") == 1
    assert await world.ask(second) == "session_revoked"


@pytest.mark.parametrize(
    ("issued_at", "created_at", "at", "before"),
    [
        (100.0, 100.7, 99.9, False),
        (100.0, 100.7, 100.5, False),
        (100.0, 100.7, 100.8, True),
        (100.0, 103.0, 101.0, True),
        (0.0, 100.7, 50.0, True),
    ],
)
def test_a_sign_in_is_before_what_came_after_it(issued_at: float, created_at: float, at: float, before: bool) -> None:
    identity = Identity(ISSUER, "ada", "session", "", 200.0)
    login = LoginSession("l_1", identity, "", "", "", created_at, created_at, 900.0, issued_at=issued_at)
    assert login.was_before(at) is before


async def test_a_logout_during_the_sign_in_wins(world: World) -> None:
    made = Browser(LAPTOP)
    answer = world.provider.authorize(await world.to_issuer(made, f"https://{WIKI}/"))
    await world.logins.end_login_sessions(ISSUER, sid="sid-1", why="logout")
    outcome = await world.back(made, answer)
    assert isinstance(outcome, Refusal)
    assert outcome.reason == "session_revoked"


async def test_nothing_brings_an_ended_session_back(world: World, browser: Browser) -> None:
    login = await world.only_login()
    assert await world.logins.end(login.id, "ended")
    assert not await world.logins.end(login.id, "again")
    world.clock.pass_(120)
    await world.logins.seen(login, 60)
    assert await world.logins.elevate(login.id, ["totp"], world.clock() + 60) is None
    assert await world.ask(browser) == "session_revoked"


# ---- what it is bound to ----


@pytest.mark.parametrize("device", [None, PHONE])
async def test_a_stolen_cookie_on_another_device_ends_the_session_at_once(
    world: World, browser: Browser, device: None
) -> None:
    assert await world.ask(twin(browser, device=device)) == "binding_mismatch"
    assert await world.ask(browser) == "session_revoked"


async def test_a_session_without_a_device_stays_unbound(world: World) -> None:
    made = Browser()
    await world.sign_in(made)
    session = await world.ask(made)
    assert session.bound_by == ()
    assert (await world.ask(twin(made, device=LAPTOP))).bound_by == ()


async def test_a_session_whose_service_saw_a_device_is_bound_to_it(world: World) -> None:
    """The gateway's own host may not have asked for a certificate; the service's did."""
    made = Browser()
    answer = world.provider.authorize(await world.to_issuer(made, f"https://{WIKI}/"))
    granted = await world.back(made, answer)
    made.device = LAPTOP
    await world.arrive(made, granted.redirect.location)  # type: ignore[union-attr]
    assert (await world.ask(made)).bound_by == ("device",)
    assert await world.ask(twin(made, device=None)) == "binding_mismatch"


async def test_further_proofs_are_asked_and_named(world: World, browser: Browser) -> None:
    class Key:
        answer: Sequence[str] | Refusal = ("dbsc",)

        async def prove(self, *_: object) -> Sequence[str] | Refusal:
            return self.answer

    key = Key()
    world.binder = BrowserBinder(world.logins, world.store, world.clock, [key])
    assert (await world.ask(browser)).bound_by == ("device", "dbsc")
    key.answer = Refusal("login_required", "a proof that is due")
    assert await world.ask(browser) == "login_required"
    key.answer = Refusal("binding_mismatch")
    assert await world.ask(browser) == "binding_mismatch"
    assert await world.ask(browser) == "session_revoked"


async def test_what_was_proven_here_counts_until_it_ends(world: World, browser: Browser) -> None:
    session = await world.ask(browser)
    elevated = await world.logins.elevate(session.id, ["webauthn"], world.clock() + 300)
    assert elevated is not None
    assert await world.ask(browser) == "login_required"  # every cookie from before is over
    browser.jars[WIKI][SESSION] = await world.cookies.open(elevated, WIKI, LAPTOP)
    identity = await world.reader.read(browser.facts(f"https://{WIKI}/"), WIKI_ROUTE)
    assert isinstance(identity, Identity)
    assert identity.amr == ("pwd", "otp", "mfa", "webauthn")
    assert identity.kind == "session"
    session = await world.ask(browser)
    assert (session.elevated_until, session.elevated_at) == (world.clock() + 300, world.clock())
    assert session.elevated_amr == ("webauthn",)
    world.clock.pass_(300)
    assert (await world.ask(browser)).elevated_until is None
    identity = await world.reader.read(browser.facts(f"https://{WIKI}/"), WIKI_ROUTE)
    assert isinstance(identity, Identity)
    assert identity.amr == ("pwd", "otp", "mfa")


async def test_a_rotated_cookie_takes_the_place_of_the_old_one(world: World, browser: Browser) -> None:
    before = twin(browser)
    value = await world.cookies.rotate(browser.jars[WIKI][SESSION], await world.only_login(), WIKI, LAPTOP)
    browser.jars[WIKI][SESSION] = value
    assert isinstance(await world.ask(browser), Session)
    assert await world.ask(before) == "login_required"


async def test_each_kind_of_identity_has_its_binder(world: World, browser: Browser) -> None:
    by_kind = BinderByKind(world.binder, BearerSessions(world.store, world.clock))
    facts = browser.facts(f"https://{WIKI}/")
    identity = await world.reader.read(facts, WIKI_ROUTE)
    assert isinstance(identity, Identity)
    session = await by_kind.bind(identity, LAPTOP, facts, WIKI_ROUTE)
    assert isinstance(session, Session)
    assert session.id.startswith("l_")
    bearer = Identity(ISSUER, "ada", "jwt", "V2_7", world.clock() + 600)
    session = await by_kind.bind(bearer, LAPTOP, facts, WIKI_ROUTE)
    assert isinstance(session, Session)
    assert session.id.startswith("b_")
    with pytest.raises(TypeError):
        await world.binder.bind(replace(bearer), LAPTOP, facts, WIKI_ROUTE)
