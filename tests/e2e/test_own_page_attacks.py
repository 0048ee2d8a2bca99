"""Attacks on the gateway's own pages and on requests that wait: each is refused by name and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from gateway.core.cookies import SESSION, SSO
from gateway.demo.clients.headless_browser import Person
from gateway.demo.world import DIRECTORY, ECHO, GATEWAY, World
from tests.support.login_site import (
    FORM,
    PROGRAM,
    Place,
    add_app,
    asked_key,
    fields_of,
    hidden,
    is_signed_in,
    reason,
    refused,
)
from tests.support.webauthn_authenticator import Authenticator

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("own_page_attacks")]

NOBODYS = "A" * 43
type Two = tuple[str, dict[str, dict[str, str]], str]
FORGED = {
    "no origin": {"origin": ""},
    "a foreign origin": {"origin": "https://evil.example"},
    "a null origin": {"origin": "null"},
    "the origin of a service": {"origin": "{service}"},
    "our origin in other words": {"origin": "{own}."},
    "a cross-site fetch": {"sec_fetch_site": "cross-site"},
    "a same-site fetch": {"sec_fetch_site": "same-site"},
    "a typed address": {"sec_fetch_site": "none"},
}
CHANGES = {
    "/.gateway/me": {"action": "end_others"},
    "/.gateway/logout": {},
    "/.gateway/factors": {"action": "begin", "kind": "totp"},
    "/.gateway/step-up": {"held": NOBODYS, "kind": "totp", "step": NOBODYS, "code": "123456"},
}


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with World() as world:
        world.start()
        yield Place(world)


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    yield running
    running.close()


@pytest.fixture(scope="module")
def two(running: Place) -> Two:
    """Carol, signed in twice: the token and the cookies of her browser, and the token of the other."""
    first, other = running.signed_in("carol"), running.signed_in("carol")
    made = running.csrf(first), {host: dict(jar) for host, jar in first.jars.items()}, running.csrf(other)
    running.close()
    return made


def changed_nothing(place: Place, jars: dict[str, dict[str, str]]) -> None:
    person = place.person()
    person.jars = {host: dict(jar) for host, jar in jars.items()}
    mine = person.ask(f"{place.own}/.gateway/me", headers=PROGRAM).json()
    assert len(mine["sessions"]) == 2
    factors = person.ask(f"{place.own}/.gateway/factors").text
    assert 'name="id"' not in factors


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("how", FORGED)
def test_a_change_that_our_own_page_did_not_send_is_refused(place: Place, two: Two, path: str, how: str) -> None:
    csrf, jars, _ = two
    person = place.person()
    person.jars = {host: dict(jar) for host, jar in jars.items()}
    headers = {n: v.format(own=place.own, service=place.url(ECHO, "")) for n, v in FORGED[how].items()}
    answer = place.post(person, path, {"csrf": csrf, **CHANGES[path]}, **headers)
    refused(answer, "csrf_refused", 403)
    changed_nothing(place, jars)


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_without_this_sessions_own_token_is_refused(place: Place, two: Two, path: str) -> None:
    csrf, jars, other = two
    person = place.person()
    person.jars = {host: dict(jar) for host, jar in jars.items()}
    for token in (None, "", other, csrf[:-1], csrf + "=", csrf.swapcase(), "\u00e9"):
        form = CHANGES[path] if token is None else {"csrf": token, **CHANGES[path]}
        refused(place.post(person, path, form), "csrf_refused", 403)
    refused(place.post(person, f"{path}?csrf={csrf}", CHANGES[path]), "csrf_refused", 403)
    changed_nothing(place, jars)


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_in_another_form_than_a_forms_is_refused(place: Place, two: Two, path: str) -> None:
    csrf, jars, _ = two
    person = place.person()
    person.jars = {host: dict(jar) for host, jar in jars.items()}
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x", ""):
        answer = place.post(person, path, {"csrf": csrf, **CHANGES[path]}, content_type=kind)
        refused(answer, "malformed_request", 400)
    changed_nothing(place, jars)


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_no_other_method_changes_anything(place: Place, two: Two, path: str, method: str) -> None:
    csrf, jars, _ = two
    person = place.person()
    person.jars = {host: dict(jar) for host, jar in jars.items()}
    form = urlencode({"csrf": csrf, **CHANGES[path]})
    headers = {"accept": "text/html", "content-type": FORM, "origin": place.own, "x-http-method-override": "POST"}
    answer = person.ask(f"{place.own}{path}?{form}", headers=headers, method=method)
    assert answer.status_code in {200, 400, 405}
    assert "location" not in answer.headers
    changed_nothing(place, jars)


# ---- requests that wait ----


def waits(place: Place, person: Person) -> str:
    """A form of the echo's own page waits for a sign-in: its id."""
    headers = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}
    headers |= {"origin": place.url(ECHO, ""), "content-type": FORM}
    answer = person.ask(place.url(ECHO, "/echo"), content=b"pay=1000", headers=headers)
    assert reason(answer) == "login_required"
    return fields_of(answer.headers["location"])["held"]


def test_a_request_that_waits_goes_on_once(place: Place) -> None:
    person = place.person()
    held = waits(place, person)
    authorize = place.at_provider(person, f"{place.own}/.gateway/login?held={held}")
    ticket = person.ask(place.callback(person, "alice", authorize)).headers["location"]
    with place.forwarding(1):
        assert person.ask(ticket).content == b"pay=1000"
        refused(person.ask(ticket), "login_expired", 400)
        refused(person.ask(f"{place.own}/.gateway/login?held={held}"), "login_expired", 400)


def test_a_request_that_waits_goes_on_in_no_other_browser(place: Place) -> None:
    victim, attacker = place.person(), place.person()
    waits(place, attacker)
    held = waits(place, victim)
    authorize = place.at_provider(victim, f"{place.own}/.gateway/login?held={held}")
    ticket = victim.ask(place.callback(victim, "alice", authorize)).headers["location"]
    with place.forwarding(0):
        refused(attacker.ask(ticket), "login_other_browser", 400)
        refused(place.person().ask(ticket), "login_expired", 400)
        refused(victim.ask(ticket), "login_expired", 400)


def test_a_request_that_waits_for_one_person_goes_on_for_no_other(place: Place) -> None:
    """An attacker's form, finished by whoever is signed in: it would act in her name."""
    attacker, victim = place.person(), place.signed_in("alice")
    held = waits(place, attacker)
    with place.forwarding(0):
        ticket = victim.ask(f"{place.own}/.gateway/login?held={held}").headers["location"]
        assert urlsplit(ticket).path == "/.gateway/session"
        refused(victim.ask(ticket), "login_other_browser", 400)
        refused(attacker.ask(ticket), "login_expired", 400)


def test_a_ticket_for_one_host_is_none_at_another(place: Place) -> None:
    person = place.person()
    ticket = person.ask(place.callback(person, "alice", place.at_provider(person))).headers["location"]
    person.jars[DIRECTORY] = dict(person.jars[ECHO])
    with place.forwarding(0):
        refused(person.ask(ticket.replace(ECHO, DIRECTORY)), "login_failed", 400)
        refused(person.ask(ticket), "login_expired", 400)


def test_a_ticket_over_another_device_is_refused_and_ends_the_session(place: Place) -> None:
    person, robber = place.person(), place.person("other-laptop")
    ticket = person.ask(place.callback(person, "alice", place.at_provider(person))).headers["location"]
    robber.jars = {host: dict(jar) for host, jar in person.jars.items()}
    with place.forwarding(0):
        refused(robber.ask(ticket), "binding_mismatch", 401)
        assert not is_signed_in(place, person)


# ---- proofs of second factors ----


def question(place: Place, person: Person, kind: str) -> tuple[dict[str, str], httpx.Response]:
    """The directory asks for a second factor: the form, and the page it is on."""
    person.open(place.url(DIRECTORY, "/export"))
    assert urlsplit(person.visited[-1]).path == "/.gateway/step-up", person.visited
    page = person.ask(person.visited[-1] + f"&kind={kind}")
    return hidden(page), page


def test_answers_of_second_factors_are_good_once_in_one_session_for_one_question(place: Place) -> None:
    erin = place.signed_in("erin", place.own + "/.gateway/me", password_alone=True)
    app, _ = add_app(place, erin)
    key = Authenticator(origin=place.own)
    page = place.post(erin, "/.gateway/factors", {"csrf": place.csrf(erin), "action": "begin", "kind": "webauthn"})
    form = {**hidden(page, "finish"), "answer": json.dumps(key.create(asked_key(page)))}
    assert reason(place.post(erin, "/.gateway/factors", form)) == "factor_ok"

    # A code, twice: in another session, and for another question.
    one, other = (place.signed_in("erin", place.own + "/.gateway/me", password_alone=True) for _ in range(2))
    first, _ = question(place, one, "totp")
    second, _ = question(place, other, "totp")
    code = app.code()
    before = one.jars[GATEWAY][SSO]
    done = place.post(one, "/.gateway/step-up", {**first, "code": code})
    assert reason(done) == "step_up_ok"
    assert one.jars[GATEWAY][SSO] != before
    refused(place.post(other, "/.gateway/step-up", {**second, "code": code}), "factor_replayed", 403)
    # The cookie from before the proof does not rise with it.
    thief = place.person()
    thief.jars[GATEWAY] = {SSO: before}
    assert not is_signed_in(place, thief)
    # The form once more, as it was, with the token of the new cookie.
    again = place.post(one, "/.gateway/step-up", {**first, "code": code, "csrf": place.csrf(one)})
    refused(again, "factor_expired", 403)

    # An assertion, twice: for the same question, and for another one.
    third, page = question(place, other, "webauthn")
    assertion = json.dumps(key.get(asked_key(page)))
    assert reason(place.post(other, "/.gateway/step-up", {**third, "answer": assertion})) == "step_up_ok"
    again = place.post(other, "/.gateway/step-up", {**third, "answer": assertion, "csrf": place.csrf(other)})
    refused(again, "factor_expired", 403)
    last = place.signed_in("erin", place.own + "/.gateway/me", password_alone=True)
    fourth, _ = question(place, last, "webauthn")
    refused(place.post(last, "/.gateway/step-up", {**fourth, "answer": assertion}), "factor_invalid", 403)
    # A question that was asked of one session, answered in another.
    fifth, page = question(place, last, "webauthn")
    fresh_answer = json.dumps(key.get(asked_key(page)))
    alice = place.signed_in("alice")
    mixed = place.post(alice, "/.gateway/step-up", {**fifth, "answer": fresh_answer, "csrf": place.csrf(alice)})
    refused(mixed, "factor_expired", 403)


def test_every_cookie_of_a_session_is_a_new_one_after_a_step_up(place: Place) -> None:
    """One that was planted or stolen before does not rise with its owner."""
    bob = place.signed_in("bob", place.own + "/.gateway/me", password_alone=True)
    bob.open(place.url(ECHO, "/headers"))
    assert urlsplit(bob.visited[-1]).path == "/.gateway/step-up"
    old = {host: dict(bob.jars[host]) for host in (GATEWAY, ECHO)}
    _, raised = add_app(place, bob, fields_of(bob.visited[-1])["held"])
    assert reason(raised) == "factor_ok"
    thief = place.person()
    thief.jars = {host: dict(jar) for host, jar in old.items()}
    with place.forwarding(0):
        refused(thief.ask(place.url(ECHO, "/headers"), headers=PROGRAM), "login_required", 401)
        assert not is_signed_in(place, thief)
    assert bob.open(raised.headers["location"]).status_code == 200
    assert bob.jars[GATEWAY][SSO] != old[GATEWAY][SSO]
    assert bob.jars[ECHO][SESSION] != old[ECHO][SESSION]
