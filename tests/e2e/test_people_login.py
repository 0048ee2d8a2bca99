"""People sign in: real gateway processes (two workers), a provider process, two services, and a browser's manners."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.core.cookies import SESSION, SSO
from gateway.demo.clients import http as client
from gateway.demo.clients.headless_browser import Person
from gateway.demo.clients.http import Browser, DeviceFiles
from gateway.demo.idp.accounts import PASSWORD
from gateway.demo.world import DIRECTORY, ECHO, GATEWAY, World

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("login")]


class Place:
    """The world, with a device for everybody who asks for one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.people: list[Person] = []

    def url(self, host: str, path: str = "/") -> str:
        return f"https://{host}:{self.world.port}{path}"

    def device(self, owner: str) -> DeviceFiles:
        folder = self.world.folder / f"device-{owner}-{len(list(self.world.folder.glob('device-*')))}"
        _, token = self.world.add_device(folder.name, owner)
        _, files = client.enrol(self.world.port, self.world.pki.root, token, folder)
        assert files is not None
        return files

    def person(self, device: DeviceFiles | None) -> Person:
        self.people.append(Person(self.world.pki.root, device))
        return self.people[-1]

    def signed_in(self, user: str, url: str = "") -> Person:
        person = self.person(self.device(user))
        answer = person.sign_in(url or self.url(DIRECTORY, "/people"), user, code=self.code(user))
        assert answer.status_code == 200, answer.text
        return person

    def code(self, user: str) -> str:
        return str(self.world.order("code", user=user)["code"])

    def record(self) -> list[dict[str, object]]:
        text = (self.world.folder / "state" / "decisions.jsonl").read_text(encoding="ascii")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with World(workers=2) as world:
        world.start()
        yield Place(world)


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    yield running
    for person in running.people:
        person.close()
    running.people.clear()
    running.world.order("switch", name="deliver_nothing", value=False)


def until(wanted: Callable[[], bool], seconds: float) -> float:
    started = time.monotonic()
    while not wanted():
        assert time.monotonic() - started < seconds, "not in time"
        time.sleep(0.02)
    return time.monotonic() - started


def test_a_deep_link_survives_the_sign_in_and_the_next_service_needs_none(place: Place) -> None:
    person = place.person(place.device("alice"))
    answer = person.sign_in(place.url(DIRECTORY, "/people?department=people&x=%2Fy"), "alice", code=place.code("alice"))
    assert answer.status_code == 200
    assert person.visited[-1] == place.url(DIRECTORY, "/people?department=people&x=%2Fy")
    second = person.open(place.url(ECHO, "/headers"))
    assert second.status_code == 200
    assert all(urlsplit(url).hostname != "127.0.0.1" for url in person.visited), "it asked the provider again"
    names = dict(second.json()["headers"])
    assert "x-gateway-jwt-assertion" in names
    assert "cookie" not in names, "our cookies reach no upstream"


def test_a_form_survives_the_sign_in_with_its_body(place: Place) -> None:
    person = place.person(place.device("alice"))
    url = place.url(ECHO, "/echo")
    answer = person.sign_in(url, "alice", {"note": "ä & = 1"}, origin=place.url(ECHO, ""), code=place.code("alice"))
    assert answer.status_code == 200, answer.text
    assert answer.content == b"note=%C3%A4+%26+%3D+1"
    assert SESSION in person.jars[ECHO]


def test_a_form_of_another_site_does_not(place: Place) -> None:
    person = place.person(place.device("alice"))
    answer = person.sign_in(
        place.url(ECHO, "/echo"), "alice", {"note": "1"}, origin="https://evil.example", code=place.code("alice")
    )
    assert b"note" not in answer.content


def test_programs_get_a_401_with_a_challenge_and_never_a_redirect(place: Place) -> None:
    browser = Browser(place.world.port, ECHO, place.world.pki.root, place.device("alice"))
    for headers in (
        {"sec-fetch-mode": "cors", "accept": "text/html"},
        {"x-requested-with": "XMLHttpRequest", "accept": "application/json"},
        {"content-type": "application/grpc", "te": "trailers"},
        {},
    ):
        answer = browser.ask("/headers", headers=headers)
        assert "location" not in answer.headers
        assert answer.headers["x-gateway-reason"] == "login_required"
        if "grpc" not in headers.get("content-type", ""):
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer resource_metadata=")
    browser.close()


def test_a_cookie_over_another_device_is_refused_at_once_and_ends_the_session(place: Place) -> None:
    person = place.signed_in("bob")
    thief = place.person(place.device("bob"))
    thief.jars[DIRECTORY] = dict(person.jars[DIRECTORY])
    stolen = thief.ask(place.url(DIRECTORY, "/people"))
    assert (stolen.status_code, stolen.headers["x-gateway-reason"]) == (401, "binding_mismatch")
    mine = person.ask(place.url(DIRECTORY, "/people"), headers={"accept": "application/json"})
    assert (mine.status_code, mine.headers["x-gateway-reason"]) == (401, "session_revoked")
    assert any(event.get("reasons") == ["binding_mismatch"] for event in place.record())


def test_a_cookie_of_one_service_is_none_at_another(place: Place) -> None:
    person = place.signed_in("bob")
    other = place.person(place.device("bob"))
    other.jars[ECHO] = {SESSION: person.jars[DIRECTORY][SESSION]}
    answer = other.ask(place.url(ECHO, "/headers"), headers={"accept": "application/json"})
    assert answer.status_code == 401
    assert answer.headers["x-gateway-reason"] == "binding_mismatch"


def test_two_cookies_of_our_name_are_believed_neither(place: Place) -> None:
    person = place.signed_in("bob")
    value = person.jars[DIRECTORY][SESSION]
    for text in (f"{SESSION}={value}; {SESSION}={'a' * 43}", f"{SESSION}={'a' * 43}; {SESSION}={value}"):
        answer = person.ask(place.url(DIRECTORY, "/people"), headers={"accept": "text/html", "cookie": text})
        person.jars[DIRECTORY] = {}
        again = person.ask(place.url(DIRECTORY, "/people"), headers={"accept": "text/html", "cookie": text})
        assert again.headers["x-gateway-reason"] == "cookie_ambiguous", answer.text
        person.jars[DIRECTORY] = {SESSION: value}


def test_logging_out_at_the_provider_ends_the_session_in_less_than_a_second(place: Place) -> None:
    person = place.signed_in("fay")
    place.world.end_session("fay")
    took = until(lambda: _code(person, place) == "session_revoked", 1.0)
    assert took < 1.0


def test_locking_the_user_ends_the_session_in_less_than_a_second(place: Place) -> None:
    person = place.signed_in("fay")
    place.world.order("lock", user="fay")
    try:
        until(lambda: _code(person, place) == "session_revoked", 1.0)
        again = person.sign_in(place.url(DIRECTORY, "/people"), "fay", code=place.code("fay"))
        assert again.status_code != 200
    finally:
        place.world.order("unlock", user="fay")


def test_what_the_pushes_lose_is_found_within_five_seconds(place: Place) -> None:
    person = place.signed_in("fay")
    place.world.order("switch", name="deliver_nothing", value=True)
    place.world.end_session("fay")
    until(lambda: _code(person, place) == "session_revoked", 5.0)


def test_signing_out_ends_it_here_and_at_the_provider(place: Place) -> None:
    person = place.signed_in("alice")
    home = person.ask(place.url(GATEWAY, "/.gateway/me"), headers={"accept": "application/json"})
    csrf = home.json()["csrf"]
    own = place.url(GATEWAY, "")
    forged = person.ask(
        place.url(GATEWAY, "/.gateway/logout"), content=b"csrf=" + csrf.encode(), origin="https://evil.example"
    )
    assert forged.headers["x-gateway-reason"] == "csrf_refused"
    got = person.ask(place.url(GATEWAY, "/.gateway/logout"))
    assert got.status_code == 200, "a GET shows a page and ends nothing"
    assert _code(person, place) == ""
    answer = person.open(place.url(GATEWAY, "/.gateway/logout"), {"csrf": csrf}, origin=own)
    assert answer.status_code == 200
    assert any("/oidc/v1/end_session" in url for url in person.visited)
    assert SSO not in person.jars[GATEWAY]
    assert _code(person, place) == "session_revoked"
    person.open(place.url(DIRECTORY, "/people"))
    assert urlsplit(person.visited[-1]).path == "/ui/v2/login/login", "the provider asks for the password again"


def test_all_other_sessions_end_from_the_page_of_my_sessions(place: Place) -> None:
    first, second = place.signed_in("alice"), place.signed_in("alice")
    home = second.ask(place.url(GATEWAY, "/.gateway/me"), headers={"accept": "application/json"}).json()
    assert sum(session["current"] for session in home["sessions"]) == 1
    assert len(home["sessions"]) >= 2
    form = {"csrf": home["csrf"], "action": "end_others"}
    answer = second.open(place.url(GATEWAY, "/.gateway/me"), form, origin=place.url(GATEWAY, ""))
    assert answer.status_code == 200
    assert _code(first, place) == "session_revoked"
    assert _code(second, place) == ""


def test_a_callback_that_this_browser_did_not_begin_is_refused(place: Place) -> None:
    victim, attacker = place.person(place.device("alice")), place.person(place.device("bob"))
    attacker.open(place.url(DIRECTORY, "/people"))
    page = attacker.visited[-1]
    form = {
        "authRequest": page.partition("authRequest=")[2],
        "loginName": "bob@acme.localhost",
        "password": PASSWORD,
        "code": place.code("bob"),
    }
    content = str(httpx.QueryParams(form)).encode()
    callback = attacker.ask(page, content=content, origin="null").headers["location"]
    assert "/.gateway/callback/dev?" in callback
    refused = victim.open(callback)
    assert refused.headers["x-gateway-reason"] in {"login_other_browser", "login_expired"}
    assert SSO not in victim.jars.get(GATEWAY, {})
    late = attacker.open(callback)
    assert late.headers["x-gateway-reason"] == "login_expired", "a state is good once, whoever used it"


def _code(person: Person, place: Place) -> str:
    answer = person.ask(place.url(DIRECTORY, "/people"), headers={"accept": "application/json"})
    return answer.headers.get("x-gateway-reason", "")


def test_a_good_session_is_the_person_whatever_authorization_stands_beside_it(place: Place) -> None:
    person = place.signed_in("alice")
    foreign = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhcmdvY2QifQ.c2ln"
    for credential in (f"Bearer {foreign}", "Basic cm9ib3Q6eA==", "Bearer glsa_x", "token y"):
        answer = person.ask(place.url(DIRECTORY, "/whoami"), headers={"authorization": credential})
        assert answer.status_code == 200, credential
