"""One's own factors: the first one, further ones, and who may not change them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.cookies import SSO
from gateway.core.decision import StepUp
from gateway.core.navigation import Redirect
from gateway.core.subject import Session
from gateway.identity.account.factors import FactorChanged, Overview
from gateway.identity.account.step_up import SteppedUp, StepUpPrompt, owner_of
from gateway.identity.factors.store import EnrolledFactor
from tests.support.login_world import HOST, ISSUER, LAPTOP, WIKI, Browser, origin, random, reason_of, twin
from tests.support.step_up_world import FACTORS_PAGE, OWN, Person, StepUpWorld, added


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[StepUpWorld]:
    made = StepUpWorld(tmp_path)
    made.provider.claims = {"amr": ["pwd"]}
    yield made
    await made.close()


@pytest.fixture
async def person(world: StepUpWorld) -> Person:
    return await signed_in(world)


async def signed_in(world: StepUpWorld) -> Person:
    browser = Browser(LAPTOP)
    await world.sign_in(browser)
    return Person(world, browser)


async def overview(person: Person, url: str = FACTORS_PAGE) -> Overview:
    found = await person.look(url)
    assert isinstance(found, Overview), found
    return found


async def mine(world: StepUpWorld) -> list[EnrolledFactor]:
    return list(await world.factors.enrolled(owner_of(await world.only_login())))


@pytest.mark.parametrize("kind", ["totp", "webauthn"])
async def test_a_first_factor_is_added_soon_after_the_sign_in_and_counts_as_a_proof(
    world: StepUpWorld, person: Person, kind: str
) -> None:
    before = person.browser.jars[HOST][SSO]
    change = added(await person.enrol(kind, label=" my\u0007 key "))
    assert (change.kind, change.redirect.location) == (kind, "/.gateway/factors")
    assert person.browser.jars[HOST][SSO] != before
    [factor] = await mine(world)
    assert (factor.kind, factor.label) == (kind, "my key")
    login = await world.only_login()
    assert login.elevated_amr == (("otp",) if kind == "totp" else ("user",))
    found = await overview(person)
    assert found.needs_proof is False
    added(await person.enrol("recovery"))
    assert len(await mine(world)) == 2


async def test_the_page_says_what_there_is_and_what_can_be_done(world: StepUpWorld, person: Person) -> None:
    document = (await overview(person)).document()
    assert document["factors"] == []
    assert document["addable"] == [{"kind": "webauthn", "replaces": False}, {"kind": "totp", "replaces": False}]
    assert (document["needs_proof"], document["back"], document["held"]) == (False, "/.gateway/me", "")
    added(await person.enrol("totp", label="phone"))
    document = (await overview(person)).document()
    assert json.loads(json.dumps(document)) == document
    assert document["addable"] == [
        {"kind": "webauthn", "replaces": False},
        {"kind": "totp", "replaces": True},
        {"kind": "recovery", "replaces": False},
    ]
    assert [(item["kind"], item["label"], item["about"]) for item in document["factors"]] == [("totp", "phone", {})]
    world.clock.pass_(301)
    document = (await overview(person)).document()
    assert (document["needs_proof"], document["provable"]) == (True, ["totp"])


async def test_a_first_factor_long_after_the_sign_in_needs_a_new_one(world: StepUpWorld, person: Person) -> None:
    world.clock.pass_(301)
    csrf = (await overview(person)).csrf
    way = await person.act("begin", kind="totp", csrf=csrf)
    assert isinstance(way, Redirect)
    assert way.location.startswith(f"{origin(HOST)}/.gateway/login?held=")
    begun = await world.login.begin(person.facts(way.location), LAPTOP)
    assert isinstance(begun, Redirect)
    assert "prompt=login" in begun.location
    assert "max_age=0" in begun.location
    granted = await world.back(person.browser, world.provider.authorize(begun.location))
    assert granted.redirect.location == "/.gateway/factors"  # type: ignore[union-attr]
    added(await person.enrol("totp"))


async def test_a_sign_in_of_unknown_age_is_an_old_one(world: StepUpWorld) -> None:
    world.provider.claims = {"amr": ["pwd"], "auth_time": None}
    person = await signed_in(world)
    assert isinstance(await person.act("begin", kind="totp"), Redirect)


async def test_a_new_session_over_an_old_sign_in_at_the_issuer_is_an_old_one(world: StepUpWorld) -> None:
    world.provider.claims = {"amr": ["pwd"], "auth_time": int(world.clock()) - 301}
    person = await signed_in(world)
    assert isinstance(await person.act("begin", kind="totp"), Redirect)


async def test_the_first_factor_of_a_waiting_request_lets_it_go_on(world: StepUpWorld, person: Person) -> None:
    where = await world.demand(person.browser)
    asked = await person.asked(where)
    assert isinstance(asked, StepUpPrompt)
    assert asked.document()["must_enrol"] is True
    assert asked.document()["enrol_kinds"] == ["webauthn", "totp"]
    found = await overview(person, origin(HOST) + asked.document()["enrol_href"])
    assert found.document()["back"] == where.removeprefix(origin(HOST))
    change = added(await person.enrol("totp", held=asked.held.id))
    way = await world.arrive(person.browser, change.redirect.location)
    assert isinstance(way, Redirect)
    assert way.location == "/export?x=1"
    session = await world.ask(person.browser)
    assert isinstance(session, Session)
    assert (session.elevated_amr, session.elevated_until) == (("otp",), session.elevated_at + 900)


async def test_a_waiting_request_waits_for_the_new_sign_in_too(world: StepUpWorld, person: Person) -> None:
    where = await world.demand(person.browser)
    world.clock.pass_(400)
    asked = await person.asked(where)
    assert isinstance(asked, StepUpPrompt)
    way = await person.act("begin", kind="totp", held=asked.held.id)
    assert isinstance(way, Redirect)
    assert way.location == where.replace("step-up", "login")
    begun = await world.login.begin(person.facts(way.location), LAPTOP)
    assert isinstance(begun, Redirect)
    granted = await world.back(person.browser, world.provider.authorize(begun.location))
    way = await world.arrive(person.browser, granted.redirect.location)  # type: ignore[union-attr]
    assert way.location == "/export?x=1"  # type: ignore[union-attr]


async def test_a_factor_that_is_not_enough_does_not_let_the_request_go_on(world: StepUpWorld, person: Person) -> None:
    asked = await person.asked(await world.demand(person.browser, StepUp(("user",), 300)))
    assert isinstance(asked, StepUpPrompt)
    change = added(await person.enrol("totp", held=asked.held.id))
    assert change.redirect.location == f"/.gateway/factors?held={asked.held.id}"
    change = added(await person.enrol("webauthn", held=asked.held.id))
    assert "/.gateway/session?ticket=" in change.redirect.location
    assert (await world.only_login()).elevated_amr == ("user",)


async def test_where_a_key_of_hardware_is_wanted_its_proof_says_so(world: StepUpWorld, person: Person) -> None:
    where = await world.demand(person.browser, StepUp(("hwk",), 300))
    asked = await person.asked(where)
    assert isinstance(asked, StepUpPrompt)
    change = added(await person.enrol("webauthn", held=asked.held.id))
    assert change.redirect.location == f"/.gateway/factors?held={asked.held.id}"
    assert isinstance(await person.prove(where), SteppedUp)


async def test_a_wrong_code_at_enrolment_may_be_followed_by_a_right_one(person: Person) -> None:
    begun = await person.act("begin", kind="totp")
    person.remember(begun.document()["enrolment"]["show"])
    again = await person.act("finish", kind="totp", step=begun.begun.id, code="000000")
    assert isinstance(again, Overview)
    document = again.document()
    assert document["error"] == "factor_invalid"
    assert document["enrolment"] == {"kind": "totp", "step": begun.begun.id, "expires_at": None, "show": {}}
    added(await person.act("finish", kind="totp", step=begun.begun.id, code=person.code()))


async def test_a_key_that_does_not_fit_is_asked_for_anew(person: Person) -> None:
    begun = await person.act("begin", kind="webauthn")
    again = await person.act("finish", kind="webauthn", step=begun.begun.id, answer="{}")
    assert (again.error, again.begun) == ("factor_invalid", None)


async def test_recovery_codes_are_nobodys_first_factor(world: StepUpWorld, person: Person) -> None:
    refused = await person.act("begin", kind="recovery")
    assert isinstance(refused, Overview)
    assert refused.error == "factor_proof_missing"
    assert await mine(world) == []


async def test_where_the_issuer_has_the_factors_nobody_adds_a_first_one_here(tmp_path: Path) -> None:
    world = StepUpWorld(tmp_path, closed=(ISSUER,))
    world.provider.claims = {"amr": ["pwd"]}
    try:
        person = await signed_in(world)
        refused = await person.act("begin", kind="totp")
        assert refused.error == "factor_closed"
        assert reason_of(await person.asked(await world.demand(person.browser))) == "factor_closed"
    finally:
        await world.close()


async def test_further_factors_and_removals_need_a_fresh_proof_in_this_session(
    world: StepUpWorld, person: Person
) -> None:
    added(await person.enrol("totp"))
    [factor] = await mine(world)
    world.clock.pass_(301)
    for action, form in (("begin", {"kind": "webauthn"}), ("remove", {"id": factor.id})):
        refused = await person.act(action, **form)
        assert isinstance(refused, Overview)
        assert refused.error == "factor_proof_missing"
    other = await signed_in(world)
    other.secret = person.secret
    asked = await other.act("ask", kind="totp")
    proven = await other.act("prove", kind="totp", step=asked.asked.id, code=other.code())
    assert isinstance(proven, FactorChanged)
    assert (proven.what, proven.kind) == ("proven", "totp")
    world.clock.pass_(30)
    assert (await person.act("remove", id=factor.id)).error == "factor_proof_missing"  # the proof was another session's
    added(await other.enrol("webauthn"))
    removed = await other.act("remove", id=factor.id)
    assert isinstance(removed, FactorChanged)
    assert (removed.what, removed.kind) == ("removed", "totp")
    assert [item.kind for item in await world.factors.enrolled(owner_of(removed.login))] == ["webauthn"]
    assert (await overview(other)).needs_proof is True  # what it was proven with is gone


async def test_a_stolen_cookie_gets_nothing_of_a_proof(world: StepUpWorld, person: Person) -> None:
    added(await person.enrol("totp"))
    world.clock.pass_(301)
    thief = Person(world, twin(person.browser))
    asked = await person.act("ask", kind="totp")
    await person.act("prove", kind="totp", step=asked.asked.id, code=person.code())
    assert reason_of(await thief.look()) == "login_required"


async def test_a_proof_that_was_taken_back_changes_nothing_any_more(world: StepUpWorld, person: Person) -> None:
    added(await person.enrol("totp"))
    assert (await overview(person)).needs_proof is False
    assert await world.logins.lower(ISSUER, "ada") == 1
    assert (await overview(person)).needs_proof is True
    assert (await person.act("begin", kind="webauthn")).error == "factor_proof_missing"


async def test_a_wrong_proof_is_an_error_on_the_page(world: StepUpWorld, person: Person) -> None:
    added(await person.enrol("totp"))
    world.clock.pass_(301)
    asked = await person.act("ask", kind="totp")
    assert asked.document()["challenge"]["kind"] == "totp"
    assert (await person.act("prove", kind="totp", step=asked.asked.id, code="000000")).error == "factor_invalid"
    assert (await person.act("ask", kind="webauthn")).error == "factor_unknown"
    assert (await person.act("remove", id="x")).error == "factor_unknown"


async def test_a_step_up_is_a_proof_for_the_page_too(world: StepUpWorld, person: Person) -> None:
    added(await person.enrol("totp"))
    world.clock.pass_(301)
    assert isinstance(await person.prove(await world.demand(person.browser)), SteppedUp)
    assert (await overview(person)).needs_proof is False


async def test_adding_to_a_stronger_proof_does_not_weaken_it(world: StepUpWorld, person: Person) -> None:
    added(await person.enrol("webauthn"))
    assert isinstance(await person.prove(await world.demand(person.browser)), SteppedUp)
    added(await person.enrol("totp"))
    assert (await world.only_login()).elevated_amr == ("user", "hwk")


@pytest.mark.parametrize("action", ["", "forget", "__init__"])
async def test_an_unknown_action_is_refused(person: Person, action: str) -> None:
    assert reason_of(await person.act(action)) == "malformed_request"


async def test_a_form_of_another_page_is_refused(world: StepUpWorld, person: Person) -> None:
    csrf = (await overview(person)).csrf
    assert reason_of(await person.act("begin", kind="totp", csrf=random())) == "csrf_refused"
    facts = person.facts(FACTORS_PAGE, method="POST", **(OWN | {"origin": origin(WIKI)}))
    form = {"csrf": csrf, "action": "begin", "kind": "totp"}
    assert reason_of(await world.own_factors.act(facts, LAPTOP, form)) == "csrf_refused"


async def test_the_page_is_for_whoever_is_signed_in(world: StepUpWorld) -> None:
    assert reason_of(await world.own_factors.look(Browser().facts(FACTORS_PAGE), None)) == "login_required"
    assert reason_of(await world.own_factors.look(Browser().facts(f"{FACTORS_PAGE}?x=1"), None)) == "malformed_request"
