"""The own paths of second factors, asked as the edge asks them."""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.cookies import SESSION, SSO
from gateway.core.decision import StepUp
from gateway.core.navigation import Resume
from gateway.core.routes import Route
from gateway.endpoints import factors as factor_endpoints
from gateway.endpoints.account import AccountEndpoints
from gateway.endpoints.browser_request import browser_limiter
from gateway.endpoints.factors import FactorEndpoints, FactorEvents
from gateway.endpoints.login import LoginEndpoints
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.router import Router
from gateway.identity.account.step_up import owner_of
from gateway.replies.replies import Reply
from tests.support.login_world import HOST, LAPTOP, WIKI, Browser, origin
from tests.support.step_up_world import FACTORS_PAGE, OWN, STEP_UP_PAGE, Person, StepUpWorld


def pages(name: Any, facts: Any, model: Any, *, status: Any = 200, code: Any = "local") -> Any:
    headers = (("content-type", "text/html"), ("x-gateway-reason", code))
    return Reply(status, headers, json.dumps([name, model]).encode(), code)


class Site:
    def __init__(self, world: Any, attempts: Any = None) -> None:
        self.world = world
        self.notes: list[Any] = []
        self.told: list[Any] = []
        shared: dict[str, Any] = {"host": HOST, "login": world.login, "pages": pages, "limiter": browser_limiter()}
        login = LoginEndpoints(tickets=world.handover, note=self.notes.append, **shared)
        account = AccountEndpoints(origin=origin(HOST), sessions=world.own, **shared)
        factors = FactorEndpoints(
            step_ups=world.step_ups,
            factors=world.own_factors,
            events=FactorEvents(self.notes.append, self.tell),
            **shared | ({} if attempts is None else {"limiter": attempts}),
        )
        self.router = Router([*login.endpoints(), *account.endpoints(), *factors.endpoints()])

    async def tell(self, event: Any) -> None:
        self.told.append((event.kind, event.about.subject, dict(event.details)))

    async def ask(self, browser: Any, url: Any, body: Any = b"", **request: Any) -> Any:
        facts = browser.facts(url, **request)
        reply = await self.router.answer(facts, browser.device, body)
        if isinstance(reply, Reply):
            browser.keep(facts.host, tuple(value for name, value in reply.headers if name == "set-cookie"))
        return reply

    async def post(self, browser: Any, url: Any, **form: Any) -> Any:
        return await self.ask(browser, url, urlencode(form).encode(), method="POST", **OWN)


def header(reply: Any, name: Any) -> Any:
    return next((value for key, value in reply.headers if key == name), None)


def model(reply: Any, name: Any) -> Any:
    found = json.loads(reply.body)
    assert found[0] == name
    return found[1]


@pytest.fixture
async def world(tmp_path: Any) -> Any:
    world = StepUpWorld(tmp_path)
    world.provider.claims = {"amr": ["pwd"]}
    yield world
    await world.close()


@pytest.fixture
def site(world: Any) -> Any:
    return Site(world)


@pytest.fixture
async def browser(site: Any) -> Any:
    made = Browser(LAPTOP)
    await sign_in(site, made)
    return made


@pytest.fixture
def person(world: Any, browser: Any) -> Any:
    return Person(world, browser)


async def sign_in(site: Any, browser: Any) -> Any:
    start = await site.world.leave(browser, f"https://{WIKI}/page")
    there = header(await site.ask(browser, start), "location")
    return await site.ask(browser, header(await site.ask(browser, site.world.provider.authorize(there)), "location"))


async def enrol(site: Any, person: Any, kind: Any, held_id: Any = "") -> Any:
    """Add a factor by the page, as a person does: the answer to the last form."""
    browser = person.browser
    shown = model(await site.ask(browser, FACTORS_PAGE + (f"?held={held_id}" if held_id else "")), "factors")
    form = {"csrf": shown["csrf"], "held": held_id, "kind": kind}
    begun = model(await site.post(browser, FACTORS_PAGE, **form, action="begin"), "factors")["enrolment"]
    person.remember(begun["show"])
    answer = person.enrolled(kind, begun["show"])
    reply = await site.post(browser, FACTORS_PAGE, **form, **answer, action="finish", step=begun["step"], label="mine")
    site.world.clock.pass_(30)
    return reply


async def prove(site: Any, person: Any, url: Any) -> Any:
    shown = model(await site.ask(person.browser, url), "step_up")
    challenge = shown["challenge"]
    form = {"csrf": shown["csrf"], "held": shown["held"], "kind": challenge["kind"], "step": challenge["step"]}
    return await site.post(
        person.browser, origin(HOST) + shown["action"], **form, **person.proof(challenge["kind"], challenge["show"])
    )


@pytest.mark.parametrize("kind", ["totp", "webauthn"])
async def test_from_no_factor_at_all_to_a_form_that_goes_on(site: Any, person: Any, kind: Any) -> None:
    browser = person.browser
    sent = {"method": "POST", "origin": origin(WIKI), "sec_fetch_site": "same-origin"}
    where = await site.world.demand(browser, body=b"a=1", **sent)
    shown = model(await site.ask(browser, where), "step_up")
    assert shown["must_enrol"] is True
    reply = await enrol(site, person, kind, shown["held"])
    assert (reply.status, reply.reason) == (302, "factor_ok")
    reply = await site.ask(browser, header(reply, "location"))
    assert isinstance(reply, Resume)
    assert (reply.raw.method, reply.body) == (b"POST", b"a=1")
    browser.keep(WIKI, reply.cookies)
    assert (await site.world.ask(browser)).elevated_until == site.world.clock() - 30 + 900


async def test_a_proof_leads_back_with_new_cookies(site: Any, person: Any) -> None:
    await enrol(site, person, "webauthn")
    before = dict(person.browser.jars[HOST])
    reply = await prove(site, person, await site.world.demand(person.browser))
    assert (reply.status, reply.reason, header(reply, "cache-control")) == (302, "step_up_ok", "no-store")
    assert person.browser.jars[HOST][SSO] != before[SSO]
    back = await site.ask(person.browser, header(reply, "location"))
    assert (back.status, header(back, "location")) == (302, "/export?x=1")
    assert SESSION in person.browser.jars[WIKI]
    assert site.notes[-1]["event"] == "step_up_ok"
    assert (site.notes[-1]["kind"], site.notes[-1]["subject"]) == ("webauthn", "ada")
    kind, subject, said = site.told[-1]
    assert (kind, subject, said["current_level"]) == ("assurance-level-change", "ada", "webauthn")


async def test_a_wrong_answer_is_the_page_again_with_its_status(site: Any, person: Any) -> None:
    await enrol(site, person, "totp")
    shown = model(await site.ask(person.browser, await site.world.demand(person.browser)), "step_up")
    replies = []
    for _ in range(6):
        step = (shown["challenge"] or {"step": "x"})["step"]
        form = {"csrf": shown["csrf"], "held": shown["held"], "kind": "totp", "step": step, "code": "000000"}
        reply = await site.post(person.browser, STEP_UP_PAGE, **form)
        shown = model(reply, "step_up")
        replies.append((reply.status, reply.reason, shown["error"]))
    assert replies[:4] == [(403, "factor_invalid", "factor_invalid")] * 4
    assert replies[4:] == [(429, "factor_locked", "factor_locked")] * 2
    assert site.notes[-1]["event"] == "step_up_refused"
    assert "000000" not in json.dumps(site.notes)


async def test_a_service_that_leaves_no_trace_leaves_none_here(site: Any, person: Any) -> None:
    await enrol(site, person, "totp")
    before = list(site.notes)
    where = await site.world.demand(person.browser, route=Route("shop", WIKI, plane="user"))
    shown = model(await site.ask(person.browser, where), "step_up")
    form = {"csrf": shown["csrf"], "held": shown["held"], "kind": "totp"}
    await site.post(person.browser, STEP_UP_PAGE, **form, step=shown["challenge"]["step"], code="000000")
    assert (await prove(site, person, where)).status == 302
    assert site.notes == before


async def test_whoever_is_not_signed_in_is_sent_to_sign_in(site: Any, person: Any) -> None:
    where = await site.world.demand(person.browser)
    reply = await site.ask(Browser(LAPTOP), where)
    assert (reply.status, header(reply, "location")) == (302, where.replace("step-up", "login"))
    reply = await site.ask(Browser(), FACTORS_PAGE)
    assert header(reply, "location").startswith(f"{origin(HOST)}/.gateway/login?held=")
    reply = await site.ask(Browser(), FACTORS_PAGE, sec_fetch_mode="cors")
    assert (reply.status, header(reply, "location")) == (401, None)


async def test_a_first_factor_long_after_the_sign_in_leads_to_a_new_one_and_back(site: Any, person: Any) -> None:
    browser = person.browser
    site.world.clock.pass_(301)
    shown = model(await site.ask(browser, FACTORS_PAGE), "factors")
    reply = await site.post(browser, FACTORS_PAGE, csrf=shown["csrf"], action="begin", kind="totp")
    assert (reply.status, reply.reason) == (302, "auth_stale")
    there = header(await site.ask(browser, header(reply, "location")), "location")
    assert "prompt=login" in there
    reply = await site.ask(browser, site.world.provider.authorize(there))
    assert header(reply, "location") == "/.gateway/factors"
    assert (await enrol(site, person, "totp")).status == 302
    assert [note["event"] for note in site.notes] == ["login_ok", "login_ok", "factor_added"]


async def test_recovery_codes_are_shown_once(site: Any, person: Any) -> None:
    await enrol(site, person, "totp")
    assert (await enrol(site, person, "recovery")).status == 302
    assert len(person.codes) == 10
    body = (await site.ask(person.browser, FACTORS_PAGE)).body.decode()
    assert not any(code in body for code in person.codes)
    assert model(await site.ask(person.browser, FACTORS_PAGE), "factors")["factors"][1]["about"] == {"left": 10}
    where = f"{await site.world.demand(person.browser)}&kind=recovery"
    assert (await prove(site, person, where)).status == 302
    assert model(await site.ask(person.browser, FACTORS_PAGE), "factors")["factors"][1]["about"] == {"left": 9}


async def test_a_factor_is_removed_after_a_confirmation(site: Any, person: Any) -> None:
    browser = person.browser
    await enrol(site, person, "totp")
    site.world.clock.pass_(301)
    shown = model(await site.ask(browser, FACTORS_PAGE), "factors")
    form = {"csrf": shown["csrf"], "action": "remove", "id": shown["factors"][0]["id"]}
    reply = await site.post(browser, FACTORS_PAGE, **form)
    assert (reply.status, reply.reason) == (403, "factor_proof_missing")
    ask = {"csrf": shown["csrf"], "kind": "totp"}
    challenge = model(await site.post(browser, FACTORS_PAGE, **ask, action="ask"), "factors")["challenge"]
    answer = ask | {"action": "prove", "step": challenge["step"], "code": person.code()}
    assert (await site.post(browser, FACTORS_PAGE, **answer)).status == 302
    assert (await site.post(browser, FACTORS_PAGE, **form)).reason == "csrf_refused"  # the cookie is another one now
    form["csrf"] = model(await site.ask(browser, FACTORS_PAGE), "factors")["csrf"]
    assert (await site.post(browser, FACTORS_PAGE, **form)).status == 302
    assert model(await site.ask(browser, FACTORS_PAGE), "factors")["factors"] == []
    assert [note["event"] for note in site.notes[1:]] == [
        "factor_added",
        "factor_refused",
        "factor_proven",
        "factor_removed",
    ]
    changes = [(kind, said["credential_type"], said["change_type"]) for kind, _, said in site.told]
    assert changes == [("credential-change", "app", "create"), ("credential-change", "app", "delete")]


async def test_a_form_of_another_site_changes_nothing(site: Any, person: Any) -> None:
    shown = model(await site.ask(person.browser, FACTORS_PAGE), "factors")
    body = urlencode({"csrf": shown["csrf"], "action": "begin", "kind": "totp"}).encode()
    for headers in ({}, {"origin": "https://evil.example"}, {"sec_fetch_site": "cross-site"}):
        sent = {"content_type": OWN["content_type"]} | ({} if not headers else OWN | headers)
        for url in (FACTORS_PAGE, STEP_UP_PAGE):
            assert (await site.ask(person.browser, url, body, method="POST", **sent)).reason == "csrf_refused"
    reply = await site.ask(person.browser, FACTORS_PAGE, b"{}", method="POST", **(OWN | {"content_type": "text/json"}))
    assert reply.reason == "malformed_request"


async def test_these_paths_are_on_the_own_host_alone(site: Any, person: Any) -> None:
    for path in ("step-up?held=x", "factors", "factors.js"):
        assert (await site.ask(person.browser, f"https://{WIKI}/.gateway/{path}")).reason == "route_not_found"


async def test_attempts_are_bounded(world: Any, browser: Any) -> None:
    site = Site(world, RateLimiter(burst=2, per_s=0.001))
    found = [(await site.ask(browser, f"{STEP_UP_PAGE}?held=x")).reason for _ in range(3)]
    assert found == ["login_expired", "login_expired", "too_many_attempts"]


async def test_the_script_is_served_as_one_and_no_script_is_no_path(
    site: Any, browser: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    file = tmp_path / "factors.js"
    monkeypatch.setattr(factor_endpoints, "SCRIPT_FILE", file)
    url = f"{origin(HOST)}/.gateway/factors.js"
    assert (await site.ask(browser, url)).reason == "route_not_found"
    file.write_text("let a = 1;\n")
    reply = await site.ask(Browser(), url)
    assert (reply.status, reply.body) == (200, b"let a = 1;\n")
    assert header(reply, "content-type") == "text/javascript; charset=utf-8"
    assert header(reply, "x-content-type-options") == "nosniff"


async def test_a_demand_that_nothing_here_meets_is_said_to_the_person(site: Any, person: Any) -> None:
    where = await site.world.demand(person.browser, StepUp(("sc",), 300))
    reply = await site.ask(person.browser, where)
    assert (reply.status, reply.reason) == (401, "mfa_required")


WORDS = st.text('ab{}[]":./?#@\\%-_~ \x00\u00e4', max_size=20) | st.sampled_from(
    ["https://evil.example", "a" * 43, "a" * 5_000, "{}", '{"code": 1}', '{"id": "x"}', "[" * 2_000, "totp", "webauthn"]
)
NAMES = st.sampled_from(["held", "kind", "step", "code", "answer", "saved", "id", "label"])
ACTIONS = st.sampled_from(["begin", "finish", "ask", "prove", "remove", "x"])
FIELDS = st.dictionaries(NAMES, WORDS, max_size=5)


@settings(max_examples=40, deadline=None)
@given(FIELDS, FIELDS, ACTIONS)
def test_whatever_a_parameter_says_nobody_is_sent_away_or_raised(query: Any, form: Any, action: Any) -> None:
    async def ask_all() -> None:
        with TemporaryDirectory() as folder:
            world = StepUpWorld(Path(folder))
            site, browser = Site(world), Browser(LAPTOP)
            await sign_in(site, browser)
            csrf = model(await site.ask(browser, FACTORS_PAGE), "factors")["csrf"]
            pending_id = (await world.demand(browser)).rpartition("held=")[2]
            for url in (STEP_UP_PAGE, FACTORS_PAGE):
                reply = await site.ask(browser, f"{url}?{urlencode(query)}" if query else url)
                assert reply.status < 500
                sent = {"held": pending_id} | form | {"csrf": csrf, "action": action}
                reply = await site.post(browser, url, **sent)
                assert reply.status < 500
                assert (header(reply, "location") or "/").startswith((f"{origin(HOST)}/.gateway/login?held=", "/"))
            login = await world.only_login()
            assert (login.elevated_until, await world.factors.enrolled(owner_of(login))) == (None, [])
            await world.close()

    asyncio.run(ask_all())
