"""Step-up as a policy file asks for it, by method, path, age and risk: real gateways behind a trusted proxy."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import httpx
import pyotp
import pytest

from gateway.demo.clients import http as client
from gateway.demo.clients.headless_browser import Person, _navigation
from gateway.demo.clients.http import Browser, DeviceFiles
from gateway.demo.world import BALANCER, DIRECTORY, ECHO, GATEWAY, World
from tests.support.paths import VECTORS

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("step_up_rules")]

PROGRAM = {"accept": "application/json"}
SHORT_S = 3
CITIES = VECTORS / "mmdb" / "GeoLite2-City-Test.mmdb"
LONDON, SEATTLE = "81.2.69.160", "216.160.83.56"
NETWORKS = f"networks: {{databases: [{CITIES}]}}\n\n"

POLICY = f"""\
package gateway.authz

changing if {{
	input.service.name == "echo"
	input.request.method in {{"PUT", "DELETE"}}
}}

live if {{
	input.service.name == "echo"
	input.request.path[0] == "sse"
}}

payments if input.request.headers["x-part"] == "payments"

proof_methods contains {{"otp", "user"}} if changing

challenges contains "mfa_stale" if {{
	changing
	not proven_here
}}

proof_ages contains {SHORT_S} if live

proof_methods contains {{"user"}} if {{
	payments
	input.risk.level in {{"medium", "high"}}
}}
"""


class RuledWorld(World):
    """The demo world with rules of its own, behind a proxy that is believed."""

    def _spawn(self, name: str, arguments: Sequence[str]) -> None:
        if name == "gateway":
            (self.policies / "gateway" / "own.rego").write_text(POLICY, encoding="utf-8")
            before, services, after = self.config.read_text(encoding="utf-8").partition("services:")
            before = before.replace(BALANCER, "127.0.0.1")
            self.config.write_text(before + NETWORKS + services + after, encoding="utf-8")
        super()._spawn(name, arguments)


class Guest(Person):
    """Somebody with an authenticator app; the proxy says that they come from `ip`."""

    ip, secret = LONDON, ""

    def ask(
        self, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None, origin: str = ""
    ) -> httpx.Response:
        sent = dict(headers or _navigation(origin, form=content is not None)) | {"x-forwarded-for": self.ip}
        return super().ask(url, content=content, origin=origin, headers=sent)

    @property
    def is_asked(self) -> bool:
        return urlsplit(self.visited[-1]).path == "/.gateway/step-up"


class Place:
    def __init__(self, world: World) -> None:
        self.world = world
        self.own = self.url(GATEWAY, "")
        self.guests: list[Guest] = []

    def url(self, host: str, path: str) -> str:
        return f"https://{host}:{self.world.port}{path}"

    def device(self, name: str) -> DeviceFiles:
        _, token = self.world.add_device(name, name)
        _, files = client.enrol(self.world.port, self.world.pki.root, token, self.world.folder / f"device-{name}")
        assert files is not None
        return files

    def arrives(self, user: str, url: str, *, password_alone: bool = False) -> tuple[Guest, httpx.Response]:
        guest = Guest(self.world.pki.root, self.device(user))
        self.guests.append(guest)
        code = "" if password_alone else str(self.world.order("code", user=user)["code"])
        return guest, guest.sign_in(url, user, code=code)

    def adds_app(self, guest: Guest, page: httpx.Response) -> httpx.Response:
        """From the question to the app that answers it, and on with the request that waits."""
        assert guest.is_asked, page.text
        page = guest.follow(page, "/.gateway/factors")
        page = guest.send(page, {"action": "begin", "kind": "totp"}, self.own)
        guest.secret = guest.shown(page, "secret").replace(" ", "")
        finish = {"action": "finish", "kind": "totp", "label": "phone", "code": pyotp.TOTP(guest.secret).now()}
        return guest.send(page, finish, self.own)


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with RuledWorld() as world:
        world.start()
        yield Place(world)


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    yield running
    for guest in running.guests:
        guest.close()
    running.guests.clear()


def said(answer: httpx.Response) -> dict[str, str]:
    assert "location" not in answer.headers
    fields = dict(re.findall(r'([a-z_]+)="([^"]*)"', answer.headers["www-authenticate"]))
    assert (answer.status_code, fields["error"]) == (401, "insufficient_user_authentication")
    return fields | {"reason": answer.headers["x-gateway-reason"]}


def test_a_rule_asks_by_method(place: Place) -> None:
    browser = Browser(place.world.port, ECHO, place.world.pki.root, place.device("alice"))
    token, before = place.world.token("alice"), place.world.requests_at_echo()
    headers = {"x-forwarded-for": LONDON}
    answers = {
        method: browser.ask("/headers", token, method=method, headers=headers)
        for method in ("GET", "POST", "PUT", "DELETE")
    }
    browser.close()
    assert {method: answer.status_code for method, answer in answers.items() if answer.is_success} == {
        "GET": 200,
        "POST": 200,
    }
    for method in ("PUT", "DELETE"):
        challenge = said(answers[method])
        assert (challenge["reason"], challenge["acr_values"]) == ("mfa_stale", "otp user")
    assert place.world.requests_at_echo() == before + 2


def test_a_rule_asks_at_one_path_for_a_younger_proof_than_the_one_that_counts_elsewhere(place: Place) -> None:
    guest, page = place.arrives("erin", place.url(ECHO, "/headers"), password_alone=True)
    assert place.adds_app(guest, page).status_code == 200
    time.sleep(SHORT_S + 0.5)
    assert guest.ask(place.url(ECHO, "/headers"), headers=PROGRAM).status_code == 200
    challenge = said(guest.ask(place.url(ECHO, "/sse"), headers=PROGRAM))
    assert (challenge["reason"], challenge["max_age"]) == ("mfa_stale", str(SHORT_S))
    page = guest.open(place.url(ECHO, "/sse"))
    assert guest.is_asked
    # The code of the next half minute: the present one was used when the app was added.
    code = pyotp.TOTP(guest.secret).at(int(time.time()) + 30)
    answer = guest.send(page, {"kind": "totp", "code": code}, place.own)
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_risk_asks_where_the_proxy_says_another_country_and_a_proof_answers_it(place: Place) -> None:
    guest, page = place.arrives("bob", place.url(DIRECTORY, "/people"))
    assert page.status_code == 200
    guest.ip = f"{SEATTLE}, {LONDON}"  # the first is the client's own word, the second what the proxy saw
    assert guest.ask(place.url(DIRECTORY, "/people"), headers=PROGRAM).status_code == 200
    guest.ip = f"{LONDON}, {SEATTLE}"
    challenge = said(guest.ask(place.url(DIRECTORY, "/people"), headers=PROGRAM))
    assert challenge["reason"] == "risk_medium"
    assert "otp" in challenge["acr_values"].split()
    strict = said(guest.ask(place.url(DIRECTORY, "/people"), headers=PROGRAM | {"x-part": "payments"}))
    assert strict["acr_values"] == "user"
    answer = place.adds_app(guest, guest.open(place.url(DIRECTORY, "/people")))
    assert answer.status_code == 200, answer.text
    assert guest.ask(place.url(DIRECTORY, "/people"), headers=PROGRAM).status_code == 200
