"""Attacks on signing in: each is refused by name, gives no session, and nothing reaches an upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote, urljoin, urlsplit

import pytest

from gateway.core.cookies import BINDING, SESSION, SSO
from gateway.demo.world import DIRECTORY, ECHO, GATEWAY, World
from tests.support.login_site import PROGRAM, Place, changed, fields_of, is_signed_in, reason, refused

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("login_attacks")]

PLACES = [
    "https://evil.example/",
    "http://evil.example",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "https:evil.example",
    "https://gateway.localhost@evil.example/",
    "https://gateway.localhost.evil.example/",
    "https://evil.example#gateway.localhost",
    "javascript:alert(1)",
    "data:text/html,x",
    "/.gateway/me\r\nlocation: https://evil.example",
    "%2f%2fevil.example",
    "%0d%0alocation:%20https://evil.example",
]
NOBODYS = "A" * 43


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with World() as world:
        world.start()
        yield Place(world)


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    yield running
    running.close()


# ---- open redirects ----


def leads_nowhere_else(place: Place, location: str | None) -> None:
    if location is not None:
        found = urlsplit(urljoin(f"{place.own}/", location.replace("\\", "/")))
        ours = {urlsplit(place.url(host)).netloc for host in (GATEWAY, ECHO, DIRECTORY)}
        assert found.netloc in ours | {urlsplit(place.world.provider_url).netloc}, location
        assert found.scheme in {"https", "http"}


@pytest.mark.parametrize("value", PLACES)
def test_no_parameter_of_an_own_page_leads_to_another_place(place: Place, value: str) -> None:
    person, stranger = place.signed_in("alice"), place.person()
    held = fields_of(stranger.ask(place.url(ECHO, "/headers")).headers["location"])["held"]
    encoded = quote(value, safe="")
    names = ("next", "url", "return_to", "redirect_uri", "issuer", "post_logout_redirect_uri", "state", "ticket")
    with place.forwarding(0):
        for path in ("login", "step-up", "me", "factors", "logout", "session", "callback/dev"):
            for query in (f"held={encoded}", f"held={held}&" + "&".join(f"{name}={encoded}" for name in names)):
                answer = person.ask(f"{place.own}/.gateway/{path}?{query}")
                leads_nowhere_else(place, answer.headers.get("location"))
                assert "evil" not in json.dumps(dict(answer.headers))
                assert answer.status_code < 500


@pytest.mark.parametrize("value", PLACES[::4])
def test_signing_out_leads_to_the_provider_and_back_to_our_own_page_alone(place: Place, value: str) -> None:
    person = place.signed_in("alice")
    form = {"csrf": place.csrf(person), "post_logout_redirect_uri": value, "next": value, "state": value}
    answer = place.post(person, f"/.gateway/logout?next={quote(value, safe='')}", form)
    location = answer.headers["location"]
    assert location.startswith(f"{place.world.provider_url}/oidc/v1/end_session?")
    assert fields_of(location)["post_logout_redirect_uri"] == f"{place.own}/.gateway/logout"
    assert "evil" not in location


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/\\evil.example/", "///evil.example", "/%2fevil.example", "/;@evil/"]
)
def test_a_deep_link_that_looks_like_another_host_stays_on_its_own(place: Place, path: str) -> None:
    person = place.person()
    answer = person.ask(place.url(ECHO, path))
    if answer.status_code != 302:
        refused(answer, "malformed_request", 400)
        return
    callback = place.callback(person, "alice", place.at_provider(person, place.url(ECHO, path)))
    arrived = person.ask(callback).headers["location"]
    target = person.ask(arrived).headers["location"]
    assert urlsplit(urljoin(arrived, target.replace("\\", "/"))).netloc == urlsplit(place.url(ECHO)).netloc


@pytest.mark.parametrize("name", ["x-forwarded-host", "x-original-url", "forwarded", "referer"])
def test_no_header_names_the_place_where_a_sign_in_ends(place: Place, name: str) -> None:
    person = place.person()
    headers = {"accept": "text/html", "sec-fetch-mode": "navigate", name: "evil.example"}
    answer = person.ask(place.url(ECHO, "/headers"), headers=headers)
    assert answer.headers["location"].startswith(f"{place.own}/.gateway/login?held=")


# ---- the answer of the issuer ----


def test_the_code_of_an_attacker_in_the_victims_browser_signs_nobody_in(place: Place) -> None:
    victim, attacker = place.person(), place.person()
    callback = place.callback(attacker, "bob", place.at_provider(attacker))
    victim.ask(place.url(ECHO, "/headers"))
    place.at_provider(victim)
    with place.forwarding(0):
        refused(victim.ask(callback), "login_other_browser", 400)
        refused(place.person().ask(callback), "login_expired", 400)
    assert SSO not in victim.jars[GATEWAY]


def test_a_code_that_was_seen_on_its_way_signs_no_other_browser_in(place: Place) -> None:
    victim, attacker = place.person(), place.person()
    callback = place.callback(victim, "alice", place.at_provider(victim))
    mine = place.callback(attacker, "bob", place.at_provider(attacker))
    with place.forwarding(0):
        # With her code in his own transaction: PKCE and the nonce are those of hers.
        refused(attacker.ask(changed(mine, code=fields_of(callback)["code"])), "login_failed", 400)
        refused(attacker.ask(callback), "login_other_browser", 400)


def test_a_code_is_good_once(place: Place) -> None:
    person = place.person()
    first = place.callback(person, "alice", place.at_provider(person))
    second = place.callback(person, "alice", place.at_provider(person, place.url(DIRECTORY, "/people")))
    assert reason(person.ask(first)) == "login_ok"
    before = dict(person.jars[GATEWAY])
    refused(person.ask(changed(second, code=fields_of(first)["code"])), "login_failed", 400)
    assert person.jars[GATEWAY] == before


def test_a_state_is_good_once(place: Place) -> None:
    person = place.person()
    callback = place.callback(person, "alice", place.at_provider(person))
    assert reason(person.ask(callback)) == "login_ok"
    refused(person.ask(callback), "login_expired", 400)
    refused(person.ask(changed(callback, state=NOBODYS)), "login_expired", 400)


@pytest.mark.parametrize("nonce", [NOBODYS, None])
def test_an_id_token_with_another_nonce_or_none_is_refused(place: Place, nonce: str | None) -> None:
    person = place.person()
    callback = place.callback(person, "alice", changed(place.at_provider(person), nonce=nonce))
    refused(person.ask(callback), "login_failed", 400)


def test_another_pkce_challenge_is_refused(place: Place) -> None:
    person = place.person()
    refused(
        person.ask(place.callback(person, "alice", changed(place.at_provider(person), code_challenge=NOBODYS))),
        "login_failed",
        400,
    )


@pytest.mark.parametrize("issuer", ["https://evil.example", "", "http://127.0.0.1", "https://gateway.localhost"])
def test_an_answer_that_names_another_issuer_is_refused(place: Place, issuer: str) -> None:
    person = place.person()
    callback = place.callback(person, "alice", place.at_provider(person))
    refused(person.ask(callback + f"&iss={quote(issuer, safe='')}"), "login_failed", 400)


def test_an_answer_that_names_its_own_issuer_is_taken(place: Place) -> None:
    person = place.person()
    callback = place.callback(person, "alice", place.at_provider(person))
    assert reason(person.ask(changed(callback, iss=place.world.provider_url))) == "login_ok"


def test_an_answer_at_another_issuers_redirect_uri_is_refused(place: Place) -> None:
    person = place.person()
    callback = place.callback(person, "alice", place.at_provider(person))
    refused(person.ask(callback.replace("/callback/dev", "/callback/other")), "login_failed", 400)
    refused(person.ask(callback), "login_expired", 400)


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        ("access_denied", "login_denied", 403),
        ("server_error", "login_failed", 400),
        ("<script>alert(1)</script>", "login_failed", 400),
        ("x" * 3_000, "login_failed", 400),
    ],
)
def test_an_error_of_the_issuer_ends_the_sign_in(place: Place, error: str, code: str, status: int) -> None:
    person = place.person()
    callback = place.callback(person, "alice", place.at_provider(person))
    answer = person.ask(changed(callback, code=None, error=error, error_description="<script>alert(2)</script>"))
    refused(answer, code, status)
    assert "alert(" not in answer.text
    refused(person.ask(callback), "login_expired", 400)


@pytest.mark.parametrize("more", ["&error=access_denied", "&code=x", "&state=x", "&iss=x&iss=y"])
def test_an_answer_that_says_two_things_is_refused(place: Place, more: str) -> None:
    person = place.person()
    callback = place.callback(person, "alice", place.at_provider(person))
    refused(person.ask(callback + more), "malformed_request", 400)


# ---- cookies ----


def test_a_session_cookie_that_was_there_before_the_sign_in_is_none_after_it(place: Place) -> None:
    victim = place.person()
    for host in (GATEWAY, ECHO):
        victim.jars[host] = {SESSION: NOBODYS, SSO: NOBODYS}
    answer = victim.sign_in(place.url(ECHO, "/headers"), "alice", code=place.code("alice"))
    assert answer.status_code == 200
    assert victim.jars[GATEWAY][SSO] != NOBODYS
    assert victim.jars[ECHO][SESSION] != NOBODYS
    attacker = place.person()
    attacker.jars = {GATEWAY: {SSO: NOBODYS}, ECHO: {SESSION: NOBODYS}}
    assert not is_signed_in(place, attacker)
    refused(attacker.ask(place.url(ECHO, "/headers"), headers=PROGRAM), "login_required", 401)


def test_the_attackers_own_session_in_the_victims_browser_does_not_become_the_victims(place: Place) -> None:
    attacker = place.signed_in("bob")
    victim = place.person()
    planted = {host: dict(attacker.jars[host]) for host in (GATEWAY, ECHO)}
    authorize = place.at_provider(victim)
    for host, jar in planted.items():
        victim.jars.setdefault(host, {}).update({name: value for name, value in jar.items() if name != BINDING})
    assert reason(victim.ask(place.callback(victim, "alice", authorize))) == "login_ok"
    assert victim.jars[GATEWAY][SSO] != planted[GATEWAY][SSO]
    assert not is_signed_in(place, attacker), "it ends where it was replaced, and never is hers"
    refused(attacker.ask(place.url(ECHO, "/headers"), headers=PROGRAM), "session_revoked", 401)


def test_every_sign_in_gives_new_cookies(place: Place) -> None:
    person = place.signed_in("alice")
    old = {host: dict(jar) for host, jar in person.jars.items()}
    person.jars[GATEWAY].pop(SSO)
    person.jars[ECHO].pop(SESSION)
    assert person.sign_in(place.url(ECHO, "/headers"), "alice", code=place.code("alice")).status_code == 200
    assert person.jars[GATEWAY][SSO] != old[GATEWAY][SSO]
    assert person.jars[ECHO][SESSION] != old[ECHO][SESSION]


@pytest.mark.parametrize("name", [SESSION, SSO, BINDING])
def test_a_cookie_that_stands_there_twice_is_not_believed(place: Place, name: str) -> None:
    person = place.person()
    callback = place.callback(person, "alice", place.at_provider(person))
    value = person.jars[GATEWAY][BINDING]
    if name != BINDING:
        person = place.signed_in("alice")
        value = person.jars[ECHO if name == SESSION else GATEWAY][name]
    url = {SESSION: place.url(ECHO, "/headers"), SSO: f"{place.own}/.gateway/me", BINDING: callback}[name]
    person.jars.clear()
    with place.forwarding(0):
        for text in (f"{name}={value}; {name}={NOBODYS}", f"{name}={NOBODYS}; a=b; {name}={value}"):
            refused(person.ask(url, headers={**PROGRAM, "cookie": text}), "cookie_ambiguous", 400)
            person.jars.clear()


@pytest.mark.parametrize(
    "spelling",
    ["{bare}", "__Secure-{bare}", "__host-{bare}", "__HOST-{bare}", "__Host-{bare}.", " {full} x", "{upper}"],
)
def test_a_cookie_tossed_by_a_sibling_domain_is_none_of_ours(place: Place, spelling: str) -> None:
    """A sibling can set any name but `__Host-`, and a browser sends both."""
    attacker, victim = place.signed_in("bob"), place.signed_in("alice")
    theirs, mine = attacker.jars[ECHO][SESSION], victim.jars[ECHO][SESSION]
    bare = SESSION.removeprefix("__Host-")
    tossed = spelling.format(bare=bare, full=SESSION, upper=SESSION.upper())
    victim.jars[ECHO] = {}
    with place.forwarding(0):
        alone = victim.ask(place.url(ECHO, "/headers"), headers={**PROGRAM, "cookie": f"{tossed}={theirs}"})
        refused(alone, "login_required", 401)
    for text in (f"{tossed}={theirs}; {SESSION}={mine}", f"{SESSION}={mine}; {tossed}={theirs}"):
        answer = victim.ask(place.url(ECHO, "/headers"), headers={"cookie": text})
        assert answer.status_code == 200
        assert mine not in answer.text, "our cookie reached the upstream"


@pytest.mark.parametrize(
    ("size", "code", "status"), [(9_000, "login_required", 401), (60_000, "headers_too_large", 431)]
)
def test_an_oversized_cookie_is_refused(place: Place, size: int, code: str, status: int) -> None:
    person = place.person()
    with place.forwarding(0):
        for name in (SESSION, "theme"):
            text = f"{name}={'a' * size}"
            answer = person.ask(place.url(ECHO, "/headers"), headers={**PROGRAM, "cookie": text})
            refused(answer, code, status)


@pytest.mark.parametrize("cookie", [SESSION, SSO])
@pytest.mark.parametrize("thief", ["other-laptop", ""])
def test_a_stolen_cookie_over_another_device_or_none_is_refused_and_ends_the_session(
    place: Place, cookie: str, thief: str
) -> None:
    victim = place.signed_in("bob")
    robber = place.person(thief) if thief else place.without_device()
    host = ECHO if cookie == SESSION else GATEWAY
    robber.jars[host] = {cookie: victim.jars[host][cookie]}
    url = place.url(ECHO, "/headers") if cookie == SESSION else f"{place.own}/.gateway/me"
    again = ("session_revoked", 401) if thief or cookie == SSO else ("device_required", 403)
    before = len(place.record())
    with place.forwarding(0):
        refused(robber.ask(url, headers=PROGRAM), "binding_mismatch", 401)
        refused(robber.ask(url, headers=PROGRAM), *again)
        refused(victim.ask(place.url(ECHO, "/headers"), headers=PROGRAM), "session_revoked", 401)
    told = victim.ask(place.url(ECHO, "/headers"))
    assert (told.status_code, reason(told)) == (302, "session_revoked"), "a page of the owner goes to the sign-in"
    if cookie == SESSION:
        assert any(event.get("reasons") == ["binding_mismatch"] for event in place.record()[before:])
