"""Stepping up, end to end: real gateway and provider processes; people with apps and paper, and programs with keys."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.core.cookies import SESSION, SSO
from gateway.demo import world
from gateway.demo.clients.headless_browser import Person
from gateway.demo.clients.http import Browser, DeviceFiles
from gateway.demo.world import ECHO, GATEWAY, World
from tests.support.login_site import PROGRAM, App, Place, add_app, fields_of, hidden, reason, refused
from tests.support.proof_world import Holder

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("step_up")]

SHORT_S = 3
# Below /big a proof of a second factor counts for three seconds.
SHORT = f"{{allow: {{roles: [staff], mfa: {{methods: [otp, recovery], max_age_s: {SHORT_S}}}}}}}"
RULES = f"    allow: {{roles: [staff]}}\n    paths: {{/big: {SHORT}}}\n  portal:  "


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        echo, portal, rest = world._CONFIG.partition("  portal:  ")
        before, _, _ = echo.rpartition("    allow: {{roles: [staff]}}\n")
        assert portal
        patch.setattr(world, "_CONFIG", before + RULES.replace("{", "{{").replace("}", "}}") + rest)
        with World() as made:
            made.start()
            yield Place(made)


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    yield running
    running.close()


@pytest.fixture(scope="module")
def apps() -> dict[str, App]:
    """The authenticator apps of people, who may have one each."""
    return {}


def with_password(place: Place, user: str) -> Person:
    """Somebody who signed in with a password alone."""
    return place.signed_in(user, f"{place.own}/.gateway/me", password_alone=True)


def to_factors(place: Place, person: Person, page: httpx.Response) -> str:
    """On from the question to the page where a factor is added: the waiting request's id."""
    assert urlsplit(person.visited[-1]).path == "/.gateway/step-up", (person.visited, page.text[:300])
    return fields_of(person.visited[-1])["held"]


# ---- people ----


def test_a_form_waits_for_the_first_second_factor_and_reaches_the_upstream_once(
    place: Place, apps: dict[str, App]
) -> None:
    erin = place.person()
    with place.forwarding(1):
        page = erin.sign_in(place.url(ECHO, "/echo"), "erin", {"pay": "1000"}, origin=place.url(ECHO, ""))
        held = to_factors(place, erin, page)
        before = {host: dict(erin.jars[host]) for host in (GATEWAY, ECHO)}
        apps["erin"], added = add_app(place, erin, held)
        arrived = erin.ask(added.headers["location"])
        assert (arrived.status_code, arrived.content) == (200, b"pay=1000")
        refused(erin.ask(added.headers["location"]), "login_expired", 400)
    for host, name in ((GATEWAY, SSO), (ECHO, SESSION)):
        assert erin.jars[host][name] != before[host][name], "the id changes with what the session may do"
    thief = place.person()
    thief.jars = before
    with place.forwarding(0):
        refused(thief.ask(place.url(ECHO, "/headers"), headers=PROGRAM), "login_required", 401)
        refused(thief.ask(f"{place.own}/.gateway/me", headers=PROGRAM), "login_required", 401)
    with place.forwarding(1):
        assert erin.ask(place.url(ECHO, "/headers")).status_code == 200, "until it ends, nobody is asked again"


def test_a_program_gets_the_challenge_of_rfc_9470(place: Place) -> None:
    token = place.world.token("erin")
    browser = Browser(place.world.port, ECHO, place.world.pki.root, place.device("laptop"))
    with place.forwarding(0):
        for path, lasting in (("/headers", 900), ("/big", SHORT_S)):
            answer = browser.ask(path, token)
            # A person without a history is a risk, which takes no proof older than five minutes.
            age = str(min(lasting, 300)) if "risk_high" in answer.json()["reasons"] else str(lasting)
            refused(answer, "mfa_required", 401)
            challenge = answer.headers["www-authenticate"]
            said = dict(re.findall(r'([a-z_]+)="([^"]*)"', challenge))
            assert challenge.startswith("Bearer ")
            assert said["error"] == "insufficient_user_authentication"
            assert said["max_age"] == age
            assert "otp" in said["acr_values"].split()
    browser.close()


def test_an_elevation_ends_by_time_and_a_page_asks_again(place: Place, apps: dict[str, App]) -> None:
    bob = with_password(place, "bob")
    page = bob.open(place.url(ECHO, "/big?mib=0"))
    held = to_factors(place, bob, page)
    apps["bob"], added = add_app(place, bob, held)
    assert bob.open(added.headers["location"]).status_code == 200
    proven = time.monotonic()
    assert bob.ask(place.url(ECHO, "/big?mib=0"), headers=PROGRAM).status_code == 200
    while time.monotonic() - proven < SHORT_S + 0.5:
        time.sleep(0.1)
    with place.forwarding(0):
        stale = bob.ask(place.url(ECHO, "/big?mib=0"), headers=PROGRAM)
        assert (stale.status_code, reason(stale)) == (401, "mfa_required")
        assert f'max_age="{SHORT_S}"' in stale.headers["www-authenticate"]
        page = bob.open(place.url(ECHO, "/big?mib=0&again=1"))
        to_factors(place, bob, page)
        before = bob.jars[GATEWAY][SSO]
    with place.forwarding(1):
        done = place.post(bob, "/.gateway/step-up", {**hidden(page), "code": apps["bob"].code()})
        assert reason(done) == "step_up_ok"
        assert bob.open(done.headers["location"]).status_code == 200
    assert bob.jars[GATEWAY][SSO] != before
    assert bob.visited[-1] == place.url(ECHO, "/big?mib=0&again=1")


def test_a_recovery_code_works_once(place: Place) -> None:
    fay = with_password(place, "fay")
    add_app(place, fay)
    page = place.post(fay, "/.gateway/factors", {"csrf": place.csrf(fay), "action": "begin", "kind": "recovery"})
    codes = [html.unescape(code) for code in re.findall(r"<li><code>([^<]*)</code></li>", page.text)]
    assert len(codes) == 10
    assert reason(place.post(fay, "/.gateway/factors", {**hidden(page, "finish"), "saved": "true"})) == "factor_ok"
    for code, allowed in ((codes[0], True), (codes[0], False), (codes[1].upper(), True)):
        again = with_password(place, "fay")
        again.open(place.url(ECHO, "/headers"))
        page = again.ask(again.visited[-1] + "&kind=recovery")
        with place.forwarding(1 if allowed else 0):
            answer = place.post(again, "/.gateway/step-up", {**hidden(page), "code": code})
            if allowed:
                assert again.open(answer.headers["location"]).status_code == 200
            else:
                refused(answer, "factor_replayed", 403)
    assert not any(code.encode() in file.read_bytes() for code in codes for file in state_of(place))


def test_wrong_codes_lock_the_factor_in_every_session_and_a_right_one_comes_too_late(place: Place) -> None:
    carol = with_password(place, "carol")
    app, _ = add_app(place, carol)
    one, other = with_password(place, "carol"), with_password(place, "carol")
    with place.forwarding(0):
        page = one.open(place.url(ECHO, "/headers"))
        for attempt in range(5):
            page = place.post(one, "/.gateway/step-up", {**hidden(page), "code": app.wrong()})
            if attempt < 4:
                refused(page, "factor_invalid", 403)
        late = other.open(place.url(ECHO, "/headers"))
        assert (late.status_code, reason(late)) == (429, "factor_locked")
        assert 'name="step"' not in late.text, "nothing is asked any more"
        again = one.open(place.url(ECHO, "/headers"))
        refused(again, "factor_locked", 429)
    events = [event for event in place.record() if event.get("event") == "step_up_refused"]
    assert {event["reason"] for event in events} <= {"factor_invalid", "factor_locked", "factor_replayed"}
    assert len(events) >= 5
    # What was tried on the account is remembered for the signals that look across sessions and people.
    until = time.monotonic() + 10
    while "credential_stuffing" not in history(place, events[0]["issuer"], events[0]["subject"]):
        assert time.monotonic() < until, "no signal heard of it"
        time.sleep(0.3)


def history(place: Place, issuer: str, subject: str) -> dict[str, object]:
    told = json.loads(place.world.operator("risk", "explain", issuer, subject, "--json"))
    found: dict[str, object] = told["history"]
    return found


def state_of(place: Place) -> list[Path]:
    return [file for file in (place.world.folder / "state").iterdir() if file.is_file()]


# ---- programs with a key of their own ----


class Program:
    """An API client that speaks DPoP (RFC 9449)."""

    def __init__(self, place: Place, user: str) -> None:
        self.place, self.holder = place, Holder()
        jwk = self.holder.jwk
        canonical = f'{{"crv":"{jwk["crv"]}","kty":"{jwk["kty"]}","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'
        self.token = bound_token(place, user, jkt=b64(hashlib.sha256(canonical.encode()).digest()))
        self.browser = Browser(place.world.port, ECHO, place.world.pki.root, place.device("laptop"))

    def proof(self, **claims: Any) -> str:
        said = {
            "jti": secrets.token_urlsafe(16),
            "htm": "GET",
            "htu": self.place.url(ECHO, "/headers"),
            "iat": time.time(),
            "ath": b64(hashlib.sha256(self.token.encode()).digest()),
        }
        return self.holder.sign({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.holder.jwk}, said | claims)

    def ask(self, proof: str | None, scheme: str = "DPoP", path: str = "/headers") -> httpx.Response:
        headers = {"authorization": f"{scheme} {self.token}"} | ({"dpop": proof} if proof is not None else {})
        return self.browser.ask(path, headers=headers)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def bound_token(place: Place, user: str, **confirmation: str) -> str:
    return str(place.world.order("token", user=user, kind="bound", cnf=confirmation)["token"])


def test_a_program_proves_its_key_with_a_nonce_of_ours_and_every_proof_once(place: Place) -> None:
    program, thief = Program(place, "alice"), Program(place, "alice")
    try:
        with place.forwarding(0):
            first = program.ask(program.proof())
            refused(first, "dpop_nonce_required", 401)
            assert 'error="use_dpop_nonce"' in first.headers["www-authenticate"]
            nonce = first.headers["dpop-nonce"]
            refused(program.ask(None), "dpop_proof_invalid", 401)
            refused(program.ask(None, "Bearer"), "binding_mismatch", 401)
            for claims in (
                {"htm": "POST"},
                {"htu": place.url(ECHO, "/big")},
                {"htu": "https://evil.example/headers"},
                {"ath": b64(bytes(32))},
                {"iat": time.time() - 3_600},
                {"iat": time.time() + 3_600},
            ):
                refused(program.ask(program.proof(nonce=nonce, **claims)), "dpop_proof_invalid", 401)
            refused(program.ask(program.proof(nonce="made-up")), "dpop_nonce_required", 401)
            # The token, stolen, with a proof of the thief's own key.
            thief.token = program.token
            refused(thief.ask(thief.proof(nonce=nonce)), "binding_mismatch", 401)
        proof = program.proof(nonce=nonce)
        with place.forwarding(1):
            assert program.ask(proof).status_code == 200
            refused(program.ask(proof), "dpop_proof_invalid", 401)
    finally:
        program.browser.close()
        thief.browser.close()


def test_a_token_that_is_bound_to_a_certificate_is_good_over_that_one_alone(place: Place) -> None:
    mine, others = place.device("laptop"), place.device("phone")
    token = bound_token(place, "bob", **{"x5t#S256": thumbprint(mine)})
    right = Browser(place.world.port, ECHO, place.world.pki.root, mine)
    wrong = Browser(place.world.port, ECHO, place.world.pki.root, others)
    try:
        with place.forwarding(0):
            refused(wrong.ask("/headers", token), "binding_mismatch", 401)
        with place.forwarding(1):
            answer = right.ask("/headers", token)
            assert answer.status_code == 200, reason(answer)
    finally:
        right.close()
        wrong.close()


def thumbprint(device: DeviceFiles) -> str:
    leaf = x509.load_pem_x509_certificates(device.certificate.read_bytes())[0]
    return b64(hashlib.sha256(leaf.public_bytes(Encoding.DER)).digest())
