"""The own paths for people, asked as the edge asks them."""

import asyncio
import contextlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.cookies import SESSION, SSO
from gateway.core.navigation import Resume
from gateway.core.reasons import Refusal
from gateway.endpoints.account import AccountEndpoints
from gateway.endpoints.browser_request import browser_limiter
from gateway.endpoints.login import LoginEndpoints
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.router import Router
from gateway.replies.replies import Reply
from tests.support.login_world import HOST, ISSUER, LAPTOP, SHOP, WIKI, WIKI_ROUTE, Browser, World, origin, random

ME, LOGOUT = f"https://{HOST}/.gateway/me", f"https://{HOST}/.gateway/logout"
OWN = {"origin": origin(HOST), "sec_fetch_site": "same-origin", "content_type": "application/x-www-form-urlencoded"}


def pages(name: Any, facts: Any, model: Any) -> Any:
    return Reply(200, (("content-type", "text/html"),), json.dumps([name, model]).encode(), "local")


class Site:
    def __init__(self, world: Any, attempts: Any = None) -> None:
        self.world = world
        self.notes: list[Any] = []
        shared: dict[str, Any] = {
            "host": HOST,
            "login": world.login,
            "pages": pages,
            "limiter": attempts or browser_limiter(),
        }
        login = LoginEndpoints(tickets=world.handover, note=self.notes.append, **shared)
        account = AccountEndpoints(origin=origin(HOST), sessions=world.own, **shared)
        self.router = Router([*login.endpoints(), *account.endpoints()])

    async def ask(self, browser: Any, url: Any, body: Any = b"", **request: Any) -> Any:
        facts = browser.facts(url, **request)
        reply = await self.router.answer(facts, browser.device, body)
        if isinstance(reply, Reply):
            browser.keep(facts.host, tuple(value for name, value in reply.headers if name == "set-cookie"))
        return reply


def header(reply: Any, name: Any) -> Any:
    return next((value for key, value in reply.headers if key == name), None)


@pytest.fixture
async def world(tmp_path: Any) -> Any:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def site(world: Any) -> Any:
    return Site(world)


async def sign_in(site: Any, browser: Any, url: Any = f"https://{WIKI}/page", **request: Any) -> Any:
    start = await site.world.leave(browser, url, **request)
    there = header(await site.ask(browser, start), "location")
    ticket = header(await site.ask(browser, site.world.provider.authorize(there)), "location")
    return await site.ask(browser, ticket)


async def test_the_whole_way_by_the_paths(site: Any) -> None:
    browser = Browser(LAPTOP)
    reply = await sign_in(site, browser)
    assert (reply.status, header(reply, "location"), reply.reason) == (302, "/page", "login_ok")
    assert header(reply, "cache-control") == "no-store"
    assert SESSION in browser.jars[WIKI]
    assert SSO in browser.jars[HOST]
    (note,) = site.notes
    assert (note["event"], note["subject"], note["device"]) == ("login_ok", "ada", "laptop")


async def test_a_held_form_comes_out_as_something_to_resume(site: Any) -> None:
    browser = Browser(LAPTOP)
    sent = {"method": "POST", "origin": origin(WIKI), "sec_fetch_site": "same-origin", "body": b"a=1"}
    reply = await sign_in(site, browser, **sent)
    assert isinstance(reply, Resume)
    assert (reply.raw.method, reply.body) == (b"POST", b"a=1")
    assert SESSION in reply.cookies[0]


async def test_a_refused_callback_is_a_page_with_its_reason_and_a_note_without_the_client(site: Any) -> None:
    browser = Browser(LAPTOP)
    reply = await site.ask(browser, f"{origin(HOST)}/.gateway/callback/id-example-com?code=a&state={random()}")
    assert (reply.status, reply.reason) == (400, "login_expired")
    assert b"<html" in reply.body
    assert site.notes == [{"event": "login_refused", "reason": "login_expired", "detail": "state"}]


async def test_a_sign_in_for_a_service_that_leaves_no_trace_is_not_noted(site: Any) -> None:
    browser = Browser(LAPTOP)
    start = await site.world.leave(browser, f"https://{WIKI}/", route=type(WIKI_ROUTE)("shop", WIKI, plane="user"))
    there = header(await site.ask(browser, start), "location")
    assert (await site.ask(browser, site.world.provider.authorize(there))).status == 302
    assert site.notes == []


async def test_these_paths_are_on_the_own_host_alone(site: Any) -> None:
    browser = Browser(LAPTOP)
    for path in ("login?held=x", "callback/id-example-com", "logout"):
        assert (await site.ask(browser, f"https://{WIKI}/.gateway/{path}")).reason == "route_not_found"
    reply = await site.ask(browser, f"https://{WIKI}/.gateway/me")
    assert header(reply, "location") == f"{origin(HOST)}/.gateway/me"
    assert (await site.ask(browser, f"https://{WIKI}/.gateway/me", sec_fetch_mode="cors")).status == 404


async def test_my_sessions_ask_for_a_sign_in_of_a_page_and_answer_a_program_with_401(site: Any) -> None:
    browser = Browser(LAPTOP)
    reply = await site.ask(browser, ME)
    assert header(reply, "location").startswith(f"{origin(HOST)}/.gateway/login?held=")
    there = header(await site.ask(browser, header(reply, "location")), "location")
    assert there.startswith(ISSUER)
    reply = await site.ask(browser, site.world.provider.authorize(there))
    assert header(reply, "location") == "/.gateway/me"
    assert json.loads((await site.ask(browser, ME)).body)[0] == "me"
    reply = await site.ask(Browser(), ME, sec_fetch_mode="cors")
    assert (reply.status, header(reply, "location"), header(reply, "www-authenticate")) == (401, None, "Bearer")


async def test_sessions_are_ended_and_the_person_signs_out_by_forms(site: Any) -> None:
    browser, other = Browser(LAPTOP), Browser()
    await sign_in(site, browser)
    await sign_in(site, other)
    shown = json.loads((await site.ask(browser, ME, sec_fetch_mode="cors")).body)
    assert len(shown["sessions"]) == 2
    form = urlencode({"csrf": shown["csrf"], "action": "end_others"}).encode()
    reply = await site.ask(browser, ME, form, method="POST", **(OWN | {"sec_fetch_mode": "cors"}))
    assert json.loads(reply.body) == {"ended": 1}
    assert (await site.ask(browser, ME, form, method="POST", **OWN)).status == 302
    out = urlencode({"csrf": shown["csrf"]}).encode()
    assert (await site.ask(browser, LOGOUT, out, method="POST", content_type=OWN["content_type"])).status == 403
    reply = await site.ask(browser, LOGOUT, out, method="POST", **OWN)
    assert urlsplit(header(reply, "location")).netloc == "id.example.com"
    assert SSO not in browser.jars[HOST]
    assert json.loads((await site.ask(browser, LOGOUT)).body) == ["signed_out", {}]


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"a=1", "text/plain", "malformed_request"),
        (b"a=1&a=2", OWN["content_type"], "malformed_request"),
        (b"a", OWN["content_type"], "malformed_request"),
        (b"a=%ff", OWN["content_type"], "malformed_request"),
        (b"a=\xff", OWN["content_type"], "malformed_request"),
        (b"&".join(b"a%d=" % number for number in range(30)), OWN["content_type"], "malformed_request"),
        (b"a=" + b"b" * 40_000, OWN["content_type"], "body_too_large"),
    ],
)
async def test_a_form_that_is_none_is_refused(site: Any, body: Any, kind: Any, code: Any) -> None:
    for url in (ME, LOGOUT):
        reply = await site.ask(Browser(), url, body, method="POST", **(OWN | {"content_type": kind}))
        assert reply.reason == code


async def test_signing_out_by_a_link_does_nothing(site: Any) -> None:
    browser = Browser(LAPTOP)
    await sign_in(site, browser)
    await site.ask(browser, LOGOUT)
    assert (await site.ask(browser, ME, sec_fetch_mode="cors")).status == 200


async def test_attempts_are_bounded(world: Any) -> None:
    site = Site(world, RateLimiter(burst=2, per_s=0.001))
    found = [(await site.ask(Browser(), f"https://{SHOP}/.gateway/session?ticket=x")).reason for _ in range(3)]
    assert found == ["malformed_request", "malformed_request", "too_many_attempts"]


WORDS = st.text("ab./:?#@\\%-_~ \x00\u00e4", max_size=20) | st.sampled_from(
    ["https://evil.example", "//evil.example", "a" * 43, "a" * 5_000, "javascript:alert(1)", "..", "l_x", "end"]
)
NAMES = st.sampled_from(["held", "issuer", "code", "state", "error", "iss", "ticket", "csrf", "action", "id", "next"])
FIELDS = st.lists(st.tuples(NAMES, WORDS), max_size=4)


@settings(max_examples=60, deadline=None)
@given(FIELDS, FIELDS, st.sampled_from([f"{SSO}={'a' * 43}", f"{SSO}=x", f"{SESSION}={'b' * 43}", "", "a"]), WORDS)
def test_whatever_a_parameter_says_nobody_is_sent_away_or_let_in(query: Any, form: Any, cookie: Any, slug: Any) -> None:
    async def ask_all() -> None:
        with TemporaryDirectory() as folder:
            world = World(Path(folder))
            site = Site(world)
            asked = f"?{urlencode(query)}" if query else ""
            for url in (
                ME,
                LOGOUT,
                *(f"https://{HOST}/.gateway/{path}" for path in ("login", "session", "callback/x")),
            ):
                reply = await site.ask(Browser(), url + asked, cookie=cookie or None)
                assert reply.status < 500
                place = header(reply, "location") or "/"
                assert place.startswith((f"{origin(HOST)}/.gateway/login?held=", "/"))
            callback = f"https://{HOST}/.gateway/callback/{quote(slug, safe='')}{asked}"
            facts: Any = None
            # The canonicaliser takes no such path.
            with contextlib.suppress(AssertionError):
                facts = Browser().facts(callback, cookie=cookie or None)
            if facts is not None:
                assert isinstance(await world.login.callback(facts, None, slug), Refusal)
            for url in (ME, LOGOUT):
                reply = await site.ask(
                    Browser(), url, urlencode(form).encode(), method="POST", cookie=cookie or None, **OWN
                )
                assert 400 <= reply.status < 500
            assert len(world.documents.of("login_session")) == 0
            await world.close()

    asyncio.run(ask_all())
