"""People at a running demo world: real gateway and provider processes, devices, browsers' manners, and no manners."""

from __future__ import annotations

import contextlib
import html
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx
import pyotp

from gateway.demo.clients import http as client
from gateway.demo.clients.headless_browser import Person
from gateway.demo.clients.http import DeviceFiles
from gateway.demo.idp.accounts import PASSWORD
from gateway.demo.world import ECHO, GATEWAY, World

FORM = "application/x-www-form-urlencoded"
PROGRAM = {"accept": "application/json"}
LOGIN_FORM = "/ui/v2/login/login"
_HIDDEN = re.compile(r'<input type="hidden" name="([\w-]+)" value="([^"]*)"')


class Place:
    """The world, with a device and a browser for everybody who asks for one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.people: list[Person] = []
        self.shared: dict[str, DeviceFiles] = {}
        self._addresses = 0

    def close(self) -> None:
        for person in self.people:
            person.close()
        self.people.clear()

    def url(self, host: str, path: str = "/") -> str:
        return f"https://{host}:{self.world.port}{path}"

    @property
    def own(self) -> str:
        """The web origin of the gateway's own host."""
        return self.url(GATEWAY, "")

    def device(self, name: str) -> DeviceFiles:
        """The device of this name, enrolled when it is asked for first."""
        if name not in self.shared:
            _, token = self.world.add_device(name, "somebody")
            _, files = client.enrol(self.world.port, self.world.pki.root, token, self.world.folder / f"device-{name}")
            assert files is not None
            self.shared[name] = files
        return self.shared[name]

    def person(self, device: str = "laptop") -> Person:
        """A new browser, at an address of its own: nobody uses up what others may ask for."""
        return self._browser(self.device(device))

    def without_device(self) -> Person:
        return self._browser(None)

    def _browser(self, device: DeviceFiles | None) -> Person:
        self._addresses += 1
        address = f"127.0.{1 + self._addresses // 250}.{1 + self._addresses % 250}"
        self.people.append(Person(self.world.pki.root, device, address))
        return self.people[-1]

    def signed_in(self, user: str, url: str = "", *, device: str = "laptop", password_alone: bool = False) -> Person:
        person = self.person(device)
        code = "" if password_alone else self.code(user)
        answer = person.sign_in(url or self.url(ECHO, "/headers"), user, code=code)
        assert answer.status_code == 200, (answer.headers.get("x-gateway-reason"), answer.text[:500])
        return person

    def code(self, user: str) -> str:
        return str(self.world.order("code", user=user)["code"])

    def record(self) -> list[dict[str, Any]]:
        text = (self.world.folder / "state" / "decisions.jsonl").read_text(encoding="ascii")
        return [json.loads(line) for line in text.splitlines()]

    @contextlib.contextmanager
    def forwarding(self, requests: int) -> Iterator[None]:
        """Within, exactly so many requests reach the upstream."""
        before = self.world.requests_at_echo()
        yield
        assert self.world.requests_at_echo() - before == requests

    # ---- a sign-in, step by step ----

    def at_provider(self, person: Person, url: str = "") -> str:
        """From a page without a session to the authorization request, which is not sent."""
        way = url or self.url(ECHO, "/headers")
        while urlsplit(way).path != "/oauth/v2/authorize":
            answer = person.ask(way)
            assert answer.status_code == 302, answer.text[:300]
            way = urljoin(way, answer.headers["location"])
        return way

    def callback(self, person: Person, user: str, authorize: str) -> str:
        """What the provider sends the browser back to after a sign-in at `authorize`; it is not sent."""
        page = urljoin(authorize, person.ask(authorize).headers["location"])
        if urlsplit(page).path != LOGIN_FORM:
            return page
        form = {"authRequest": fields_of(page)["authRequest"], "loginName": f"{user}@acme.localhost"}
        form |= {"password": PASSWORD, "code": self.code(user)}
        back = person.ask(page, content=urlencode(form).encode(), origin="null").headers["location"]
        assert "/.gateway/callback/dev?" in back, back
        return str(back)

    # ---- the gateway's own pages ----

    def csrf(self, person: Person) -> str:
        answer = person.ask(f"{self.own}/.gateway/me", headers=PROGRAM)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["csrf"])

    def post(self, person: Person, path: str, form: Mapping[str, str], **changed: str) -> httpx.Response:
        """The form of a page of the gateway's own, with headers changed; an empty one is left out."""
        headers = {
            "accept": "text/html",
            "content-type": FORM,
            "origin": self.own,
            "sec-fetch-site": "same-origin",
            "sec-fetch-mode": "navigate",
        } | {name.replace("_", "-"): value for name, value in changed.items()}
        sent = {name: value for name, value in headers.items() if value}
        return person.ask(f"{self.own}{path}", content=urlencode(form).encode(), headers=sent)


class App:
    """An authenticator app. Every code is one time step after the one before it, and never used."""

    def __init__(self, secret: str) -> None:
        self.totp = pyotp.TOTP(secret)
        # The step before this one is still accepted, so three codes are there without waiting.
        self._step = int(time.time()) // 30 - 2

    def code(self) -> str:
        self._step = max(self._step + 1, int(time.time()) // 30 - 1)
        while self._step > int(time.time()) // 30 + 1:
            time.sleep(0.2)
        return str(self.totp.generate_otp(self._step))

    def wrong(self) -> str:
        """A code of no time step that is accepted now or soon."""
        now = int(time.time()) // 30
        good = {self.totp.generate_otp(now + offset) for offset in range(-2, 5)}
        return next(code for code in map("{:06}".format, range(100)) if code not in good)


def add_app(place: Place, person: Person, held: str = "") -> tuple[App, httpx.Response]:
    """Somebody adds an authenticator app as their first factor; the answer to the last form, not followed."""
    form = {"csrf": place.csrf(person), "held": held, "action": "begin", "kind": "totp"}
    page = place.post(person, "/.gateway/factors", form)
    assert page.status_code == 200, (page.headers.get("x-gateway-reason"), page.text[:300])
    app = App(person.shown(page, "secret").replace(" ", ""))
    form = {**hidden(page, "finish"), "label": "phone", "code": app.code()}
    answer = place.post(person, "/.gateway/factors", form)
    assert answer.status_code == 302, (answer.headers.get("x-gateway-reason"), answer.text[:300])
    return app, answer


def hidden(page: httpx.Response, action: str = "") -> dict[str, str]:
    """The hidden fields of the page's form that has a step and, with `action`, this one."""
    for body in page.text.split("<form")[1:]:
        found = {name: html.unescape(value) for name, value in _HIDDEN.findall(body.partition("</form>")[0])}
        if "step" in found and found.get("action", "") == action:
            return found
    raise AssertionError(f"no such form: {page.headers.get('x-gateway-reason')} {page.text[:300]}")


def asked_key(page: httpx.Response) -> dict[str, Any]:
    """What the page asks a security key."""
    found = re.search(r'data-options="([^"]*)"', page.text)
    assert found is not None, page.text[:300]
    return {"publicKey": json.loads(html.unescape(found[1]))}


def fields_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def changed(url: str, **fields: str | None) -> str:
    """`url` with query fields replaced, or removed (None)."""
    query = {name: value for name, value in (fields_of(url) | fields).items() if value is not None}
    return urlsplit(url)._replace(query=urlencode(query)).geturl()


def reason(answer: httpx.Response) -> str:
    return str(answer.headers.get("x-gateway-reason", ""))


def refused(answer: httpx.Response, code: str, status: int) -> None:
    """A refusal with this code, which gives no session and leads nowhere."""
    assert (reason(answer), answer.status_code) == (code, status), answer.text[:300]
    assert "location" not in answer.headers
    assert not [text for text in answer.headers.get_list("set-cookie") if not text.startswith("__Host-gateway-login=")]


def is_signed_in(place: Place, person: Person) -> bool:
    """Whether the browser's cookie of the gateway's own host is good."""
    return person.ask(f"{place.own}/.gateway/me", headers=PROGRAM).status_code == 200
