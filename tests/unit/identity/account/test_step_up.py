"""Stepping up: who is asked for what, what a proof is worth, and what nobody gets by it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.core.cookies import SESSION, SSO
from gateway.core.decision import StepUp
from gateway.core.navigation import Redirect, Resume
from gateway.core.reasons import REASONS, Refusal
from gateway.core.routes import Route
from gateway.core.subject import Identity, Session
from gateway.identity.account.step_up import COLLECTION, SteppedUp, StepUpPrompt, answer_of, would_do
from tests.support.login_world import (
    HOST,
    ISSUER,
    LAPTOP,
    SHOP,
    WIKI,
    WIKI_ROUTE,
    Browser,
    origin,
    random,
    reason_of,
    twin,
)
from tests.support.step_up_world import ANY, OWN, STEP_UP_PAGE, Person, StepUpWorld, added


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[StepUpWorld]:
    made = StepUpWorld(tmp_path)
    made.provider.claims = {"amr": ["pwd"]}
    yield made
    await made.close()


@pytest.fixture
async def person(world: StepUpWorld) -> Person:
    browser = Browser(LAPTOP)
    await world.sign_in(browser)
    return Person(world, browser)


async def question(person: Person, url: str) -> StepUpPrompt:
    found = await person.asked(url)
    assert isinstance(found, StepUpPrompt), found
    return found


def written(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob("gateway.sqlite*"))


async def with_totp(person: Person) -> Person:
    added(await person.enrol("totp", label="phone"))
    return person


async def amr(world: StepUpWorld, browser: Browser) -> tuple[str, ...]:
    identity = await world.reader.read(browser.facts(f"https://{WIKI}/"), WIKI_ROUTE)
    assert isinstance(identity, Identity), identity
    return identity.amr


@pytest.mark.parametrize("kind", ["totp", "webauthn", "recovery"])
async def test_a_proof_raises_the_session_and_the_request_goes_on(
    world: StepUpWorld, person: Person, kind: str
) -> None:
    await with_totp(person)
    if kind != "totp":
        added(await person.enrol(kind))
    proven = {"totp": ("otp",), "webauthn": ("user", "hwk"), "recovery": ("recovery",)}[kind]
    where = f"{await world.demand(person.browser)}&kind={kind}"
    stepped = await person.answer(await question(person, where))
    assert isinstance(stepped, SteppedUp), stepped
    assert (stepped.kind, stepped.zero_log) == (kind, False)
    way = await world.arrive(person.browser, stepped.redirect.location)
    assert isinstance(way, Redirect)
    assert way.location == "/export?x=1"
    assert await amr(world, person.browser) == ("pwd", *proven)
    session = await world.ask(person.browser)
    assert isinstance(session, Session)
    assert (session.elevated_at, session.elevated_amr) == (world.clock(), proven)
    assert session.elevated_until == world.clock() + 900


async def test_a_form_goes_on_with_its_body(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    sent = {"method": "POST", "origin": origin(WIKI), "sec_fetch_site": "same-origin", "content_type": "text/plain"}
    stepped = await person.prove(await world.demand(person.browser, body=b"a=1", **sent))
    way = await world.arrive(person.browser, stepped.redirect.location)
    assert isinstance(way, Resume)
    assert (way.raw.method, way.raw.target, way.body) == (b"POST", b"/export?x=1", b"a=1")


async def test_it_ends_by_time(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    stepped = await person.prove(await world.demand(person.browser, StepUp(("otp",), 60)))
    await world.arrive(person.browser, stepped.redirect.location)
    world.clock.pass_(59)
    assert await amr(world, person.browser) == ("pwd", "otp")
    world.clock.pass_(1)
    assert await amr(world, person.browser) == ("pwd",)
    assert (await world.ask(person.browser)).elevated_until is None


async def test_the_latest_proof_is_the_one_that_counts(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    await person.prove(await world.demand(person.browser, StepUp(("otp",), 600)))
    world.clock.pass_(60)
    await person.prove(await world.demand(person.browser, StepUp(("otp",), 300)))
    login = await world.only_login()
    assert (login.elevated_until, login.elevated_at) == (world.clock() + 300, world.clock())


async def test_a_step_up_is_no_longer_than_the_session(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    await person.prove(await world.demand(person.browser, StepUp(("otp",), 86_400)))
    login = await world.only_login()
    assert login.elevated_until == login.ends_at


async def test_the_question_says_what_is_asked_and_why(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    added(await person.enrol("webauthn", label="Blue key"))
    document = (await question(person, await world.demand(person.browser))).document()
    assert json.loads(json.dumps(document)) == document
    assert (document["name"], document["email"], document["host"]) == ("Ada", "ada@example.com", WIKI)
    assert document["why"] == ["mfa_required"]
    assert (document["methods"], document["max_age_s"]) == (["otp", "recovery", "user"], 900)
    assert [(item["kind"], item["labels"], item["chosen"]) for item in document["factors"]] == [
        ("webauthn", ["Blue key"], True),
        ("totp", ["phone"], False),
    ]
    assert document["challenge"]["kind"] == "webauthn"
    assert document["challenge"]["show"]["publicKey"]["userVerification"] == "required"
    assert (document["must_enrol"], document["error"], document["action"]) == (False, None, "/.gateway/step-up")
    other = await question(person, origin(HOST) + document["factors"][1]["href"])
    assert (other.kind, other.document()["challenge"]["show"]) == ("totp", {})


async def test_only_what_policy_takes_is_asked_for(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    strict = await question(person, await world.demand(person.browser, StepUp(("user",), 300)))
    document = strict.document()
    assert (document["must_enrol"], document["factors"], document["challenge"]) == (True, [], None)
    assert document["enrol_kinds"] == ["webauthn"]
    added(await person.enrol("webauthn"))
    strict = await question(person, f"{await world.demand(person.browser, StepUp(('user',), 300))}&kind=totp")
    assert (list(strict.usable), strict.kind) == (["webauthn"], "webauthn")


async def test_a_weaker_proof_than_policy_asked_for_is_refused(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    added(await person.enrol("webauthn"))
    easy = await question(person, f"{await world.demand(person.browser)}&kind=totp")
    hard = await question(person, await world.demand(person.browser, StepUp(("user",), 300)))
    assert easy.begun is not None
    again = await person.answer(hard, kind="totp", step=easy.begun.id, code=person.code())
    assert isinstance(again, StepUpPrompt)
    assert again.error == "factor_insufficient"
    assert (await world.only_login()).rotation == 1  # that of the enrolment


async def test_where_nothing_would_do_policys_own_reason_stands(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    assert reason_of(await person.asked(await world.demand(person.browser, StepUp(("sc",), 300)))) == "mfa_required"


async def test_a_wrong_answer_asks_again_and_five_lock_the_kind(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    added(await person.enrol("recovery"))
    where = f"{await world.demand(person.browser)}&kind=totp"
    found = await question(person, where)
    for _ in range(5):
        found = await person.answer(found, code="000000")
        assert isinstance(found, StepUpPrompt)
    assert (found.error, found.begun, found.kind) == ("factor_locked", None, "totp")
    assert (await world.only_login()).elevated_amr == ("otp",)  # of the enrolment
    paper = await question(person, where.replace("totp", "recovery"))
    assert isinstance(await person.answer(paper), SteppedUp)


async def test_a_question_is_answered_once_and_by_whom_it_was_put_to(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    asked = await question(person, await world.demand(person.browser))
    assert isinstance(await person.answer(asked), SteppedUp)
    world.clock.pass_(30)
    fresh = await question(person, await world.demand(person.browser))
    again = await person.answer(fresh, step=asked.begun.id if asked.begun else "", code=person.code())
    assert isinstance(again, StepUpPrompt)
    assert again.error == "factor_expired"
    world.provider.claims = {"sub": "bob", "sid": "sid-b", "amr": ["pwd"]}
    browser = Browser(LAPTOP)
    await world.sign_in(browser)
    bob = await with_totp(Person(world, browser))
    his = await question(bob, await world.demand(browser))
    assert again.begun is not None
    stolen = await bob.answer(his, step=again.begun.id, code=person.code())
    assert isinstance(stolen, StepUpPrompt)
    assert stolen.error == "factor_expired"


async def test_the_session_is_raised_under_new_cookies_everywhere(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    begun = await world.login.begin(person.facts(await world.leave(person.browser, f"https://{WIKI}/")), LAPTOP)
    assert isinstance(begun, Redirect)
    await world.arrive(person.browser, begun.location)
    thief = twin(person.browser)
    assert isinstance(await world.ask(thief), Session)
    stepped = await person.prove(await world.demand(person.browser))
    assert isinstance(stepped, SteppedUp)
    assert await world.ask(thief) == "login_required"
    assert reason_of(await world.login.signed_in(thief.facts(f"https://{HOST}/"), LAPTOP)) == "login_required"
    assert thief.jars[HOST][SSO] != person.browser.jars[HOST][SSO]
    assert await world.ask(person.browser) == "login_required"  # until it arrives with its ticket
    await world.arrive(person.browser, stepped.redirect.location)
    assert isinstance(await world.ask(person.browser), Session)
    assert thief.jars[WIKI][SESSION] != person.browser.jars[WIKI][SESSION]


async def test_a_ticket_from_before_opens_nothing_after(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    thief = Browser(LAPTOP, {HOST: dict(person.browser.jars[HOST])})
    start = await world.leave(thief, f"https://{WIKI}/secret")
    begun = await world.login.begin(thief.facts(start), LAPTOP)
    assert isinstance(begun, Redirect)
    assert "/.gateway/session?ticket=" in begun.location
    await person.prove(await world.demand(person.browser))
    way = await world.arrive(thief, begun.location)
    assert isinstance(way, Redirect)
    assert way.location.startswith(f"{origin(HOST)}/.gateway/login?held=")
    assert SESSION not in thief.jars[WIKI]


async def test_the_proof_of_another_does_not_resume_what_they_sent(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    thief = Browser(LAPTOP)
    stepped = await person.prove(await world.demand(thief))
    assert reason_of(await world.arrive(person.browser, stepped.redirect.location)) == "login_other_browser"


async def test_whoever_is_not_signed_in_signs_in_first(world: StepUpWorld, person: Person) -> None:
    where = await world.demand(person.browser)
    for browser in (Browser(LAPTOP), Browser(LAPTOP, {HOST: {SSO: random()}})):
        way = await world.step_ups.look(browser.facts(where), LAPTOP)
        assert isinstance(way, Redirect)
        assert way.location == where.replace("step-up", "login")
    assert isinstance(await world.login.begin(person.facts(way.location), LAPTOP), Redirect)


async def test_another_device_is_refused_and_the_session_ended(world: StepUpWorld, person: Person) -> None:
    where = await world.demand(person.browser)
    assert reason_of(await world.step_ups.look(person.facts(where), None)) == "binding_mismatch"
    assert await world.logins.of_subject(ISSUER, "ada") == []


async def test_a_session_of_an_issuer_that_the_service_does_not_take_signs_in_anew(
    world: StepUpWorld, person: Person
) -> None:
    route = Route("shop", SHOP, issuers=(ISSUER + "/other",))
    facts = person.facts(f"https://{SHOP}/")
    held = await world.held.hold(facts, route, b"", random(), step_up=ANY)
    assert not isinstance(held, Refusal)
    way = await person.asked(f"{STEP_UP_PAGE}?held={held.id}")
    assert isinstance(way, Redirect)
    assert way.location.startswith(f"{origin(HOST)}/.gateway/login?held=")


async def test_a_request_that_waits_for_a_sign_in_is_sent_there(world: StepUpWorld, person: Person) -> None:
    start = await world.leave(person.browser, f"https://{WIKI}/")
    way = await person.asked(start.replace("login", "step-up"))
    assert isinstance(way, Redirect)
    assert way.location == start


@pytest.mark.parametrize("query", ["", "held=x", "held=a&held=b", "held=a&next=https://evil.example", "kind=totp"])
async def test_a_query_that_is_none_is_refused(person: Person, query: str) -> None:
    assert reason_of(await person.asked(f"{STEP_UP_PAGE}?{query}")) in {"malformed_request", "login_expired"}


async def test_a_held_request_that_is_over_is_refused(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    asked = await question(person, await world.demand(person.browser))
    world.clock.pass_(901)
    assert reason_of(await person.answer(asked, code=person.code())) == "login_expired"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": origin(WIKI), "sec_fetch_site": "same-site"},
        OWN | {"sec_fetch_site": "cross-site"},
    ],
)
async def test_a_form_of_another_page_is_refused(world: StepUpWorld, person: Person, headers: dict[str, str]) -> None:
    await with_totp(person)
    asked = await question(person, await world.demand(person.browser))
    assert asked.begun is not None
    form = {"csrf": asked.csrf, "held": asked.held.id, "kind": "totp", "step": asked.begun.id, "code": person.code()}
    facts = person.facts(STEP_UP_PAGE, method="POST", **headers)
    assert reason_of(await world.step_ups.answer(facts, LAPTOP, form)) == "csrf_refused"
    facts = person.facts(STEP_UP_PAGE, method="POST", **OWN)
    for wrong in ("", random(), asked.csrf + "\u00e4"):
        assert reason_of(await world.step_ups.answer(facts, LAPTOP, form | {"csrf": wrong})) == "csrf_refused"
    assert isinstance(await world.step_ups.answer(facts, LAPTOP, form), SteppedUp)


async def test_a_session_that_ends_meanwhile_is_not_raised(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    asked = await question(person, await world.demand(person.browser))
    await world.logins.end((await world.only_login()).id, "locked")
    assert reason_of(await person.answer(asked, code=person.code())) == "session_revoked"


async def test_a_service_that_leaves_no_trace_is_said_to_be_one(world: StepUpWorld, person: Person) -> None:
    await with_totp(person)
    stepped = await person.prove(await world.demand(person.browser, route=Route("shop", WIKI, plane="user")))
    assert stepped.zero_log is True


async def test_nothing_secret_is_in_a_repr_or_in_the_clear_in_the_store(
    world: StepUpWorld, person: Person, tmp_path: Path
) -> None:
    await with_totp(person)
    asked = await question(person, await world.demand(person.browser))
    stepped = await person.answer(asked)
    text = repr(asked) + repr(stepped)
    for secret in (asked.csrf, asked.held.id, person.browser.jars[HOST][SSO], stepped.redirect.location):
        assert secret not in text
    assert await world.documents.get(COLLECTION, stepped.login.id, world.clock()) is not None
    assert b"factor_id" not in written(tmp_path)


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ({"code": "1"}, {"code": "1"}),
        ({"saved": "true"}, {"saved": True}),
        ({"saved": "1"}, {"saved": False}),
        ({"answer": '{"a": [1]}'}, {"a": [1]}),
        ({"answer": "[1]"}, None),
        ({"answer": "{"}, None),
        ({"answer": "[" * 20_000}, None),
        ({"answer": "{}", "code": "1"}, None),
        ({}, None),
    ],
)
def test_an_answer_is_one_field_of_a_form(form: dict[str, str], answer: Any) -> None:
    found = answer_of(form)
    assert (reason_of(found) == "malformed_request") if answer is None else found == answer


def test_an_empty_demand_takes_any_factor_but_not_none() -> None:
    assert would_do(StepUp(), ("kba",))
    assert not would_do(StepUp(), ())
    assert not would_do(StepUp(("user",)), ("otp",))


async def test_the_held_id_is_all_that_a_step_up_address_has(world: StepUpWorld, person: Person) -> None:
    parts = urlsplit(await world.demand(person.browser))
    assert (parts.netloc, parts.path, list(parse_qs(parts.query))) == (f"{HOST}:8443", "/.gateway/step-up", ["held"])
    assert "step_up_ok" in REASONS
