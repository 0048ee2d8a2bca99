"""The tour's part about people: they sign in with a browser, a cookie is stolen, logins end at the provider."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

import httpx
import pyotp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.core import paths
from gateway.core.cookies import SESSION
from gateway.demo.clients import chromium
from gateway.demo.clients import http as client
from gateway.demo.clients.chromium import Chromium
from gateway.demo.clients.headless_browser import Person
from gateway.demo.clients.http import DeviceFiles
from gateway.demo.clients.security_agent import agent
from gateway.demo.idp.accounts import ORG_DOMAIN, PASSWORD
from gateway.demo.tour.steps import Seen, Step
from gateway.demo.world import DIRECTORY, ECHO, GATEWAY, World

_OK, _UNAUTHENTICATED = 200, 401
_PUSH_LIMIT_S = 1.0
_PATIENCE_S = 10.0
_POLL_S = 0.01
_PROGRAM = {"accept": "application/json"}


class PeopleTour:
    """Steps of people with browsers. `device` is Alice's laptop, enrolled by the time the first step is taken."""

    def __init__(self, world: World, device: DeviceFiles) -> None:
        self.world = world
        self._device = device
        self._alice = Person(world.pki.root, device)
        self._thief: Person | None = None
        self._has_browser = chromium.starts()

    def steps(self) -> Sequence[Step]:
        """Every step of this part."""
        browser = "a real browser" if self._has_browser else "a plain client (no Chromium starts here)"
        return (
            Step("People", f"Alice signs in with {browser}", "her directory", self._signs_in),
            Step("People", "A program without a session is not redirected", "401 login_required", self._program),
            Step("People", "The next service needs no sign-in", "200, no form", self._next_service),
            Step("People", "Erin, with a password alone, exports", "an app added, then her export", self._exports),
            Step("People", "Her cookie, stolen, on another device", "401 binding_mismatch", self._stolen),
            Step("People", "Alice sees that her session was ended", "401 session_revoked", self._told),
            Step(
                "People",
                "Bob logs out at the provider",
                f"refused within {_PUSH_LIMIT_S:.0f} s",
                lambda: self._ends("bob", lambda: self.world.end_session("bob")),
            ),
            Step(
                "People",
                "Fay is locked at the provider",
                f"refused within {_PUSH_LIMIT_S:.0f} s",
                lambda: self._ends("fay", lambda: self.world.order("lock", user="fay")),
            ),
        )

    def close(self) -> None:
        """Close every browser."""
        for person in filter(None, (self._alice, self._thief)):
            person.close()

    def url(self, host: str, path: str) -> str:
        """An address behind the gateway."""
        return f"https://{host}:{self.world.port}{path}"

    def _code(self, user: str) -> str:
        return str(self.world.order("code", user=user)["code"])

    # ---- signing in ----

    def _signs_in(self) -> Seen:
        if not self._has_browser:
            answer = self._alice.sign_in(self.url(DIRECTORY, "/people"), "alice", code=self._code("alice"))
            return Seen(f"{answer.status_code}", answer.status_code == _OK and "Carol Cho" in answer.text)
        started = time.monotonic()
        with self.browser() as browser:
            browser.open(self.url(DIRECTORY, "/people"))
            self.fill_in(browser, "alice")
            browser.wait("location.pathname === '/people'", "the directory")
            seen = "Carol Cho" in browser.text
            for host in (DIRECTORY, GATEWAY):
                self._alice.jars[host] = browser.cookies(self.url(host, "/"))
        return Seen(f"after {time.monotonic() - started:.1f} s", seen and SESSION in self._alice.jars[DIRECTORY])

    @contextlib.contextmanager
    def browser(self) -> Iterator[Chromium]:
        """A Chromium on Alice's laptop."""
        pki = self.world.pki.folder
        certificate = x509.load_pem_x509_certificate((pki / "server.pem").read_bytes())
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = base64.b64encode(hashlib.sha256(key).digest()).decode("ascii")
        files = (pki / "server.pem", pki / "server.key")
        with agent(self.world.port, self.world.pki.root, self._device, files) as port:
            rules = [f"MAP {host}:{self.world.port} 127.0.0.1:{port}" for host in (GATEWAY, DIRECTORY, ECHO)]
            with chromium.browsing(rules, digest) as page:
                yield page

    def fill_in(self, browser: Chromium, user: str) -> None:
        """Sign in on the provider's page."""
        browser.fill("loginName", f"{user}@{ORG_DOMAIN}")
        browser.fill("password", PASSWORD)
        browser.fill("code", self._code(user))
        browser.press("button")

    def _program(self) -> Seen:
        stranger = Person(self.world.pki.root, self._device)
        with contextlib.closing(stranger):
            answer = stranger.ask(self.url(DIRECTORY, "/people"), headers=_PROGRAM)
        return _refused(answer, "login_required")

    def _next_service(self) -> Seen:
        answer = self._alice.open(self.url(ECHO, "/headers"))
        asked = any(urlsplit(url).hostname == "127.0.0.1" for url in self._alice.visited)
        return Seen(
            f"{answer.status_code}, {len(self._alice.visited) - 1} redirects", answer.status_code == _OK and not asked
        )

    # ---- stepping up ----

    def _exports(self) -> Seen:
        """The directory asks for a second factor; she has none, adds an authenticator app, and her export goes on."""
        page = self._exports_in_a_browser() if self._has_browser else self._exports_by_hand()
        asked, exported = page
        done = asked and exported.startswith("name;department") and "Carol Cho" in exported
        return Seen(f"asked: {'yes' if asked else 'no'}, {exported.count(chr(10))} lines", done)

    def _exports_in_a_browser(self) -> tuple[bool, str]:
        with self.browser() as browser:
            browser.open(self.url(DIRECTORY, "/export"))
            browser.fill("loginName", f"erin@{ORG_DOMAIN}")
            browser.fill("password", PASSWORD)
            browser.press("button")
            browser.wait(f"location.pathname === '{paths.STEP_UP}'", "the question for a second factor")
            browser.press("a.button.primary")
            browser.press("form:has(input[name=kind][value=totp]) button")
            browser.wait("document.querySelector('code.secret') !== null", "the secret of the app")
            secret = str(browser.run("document.querySelector('code.secret').innerText")).replace(" ", "")
            browser.fill("code", pyotp.TOTP(secret).now())
            browser.press("form:has(input[name=code]) button.primary")
            browser.wait("location.pathname === '/export'", "the export")
            return True, f"{browser.text}\n"

    def _exports_by_hand(self) -> tuple[bool, str]:
        """A form, in a browser's manners: it waits with its fields until she has proven who she is."""
        person, origin = Person(self.world.pki.root, self._device), self.url(GATEWAY, "")
        with contextlib.closing(person):
            url = self.url(DIRECTORY, "/export")
            page = person.sign_in(url, "erin", {"department": "finance"}, origin=self.url(DIRECTORY, ""))
            asked = urlsplit(person.visited[-1]).path == paths.STEP_UP
            page = person.follow(page, paths.FACTORS)
            page = person.send(page, {"action": "begin", "kind": "totp"}, origin)
            code = pyotp.TOTP(person.shown(page, "secret").replace(" ", "")).now()
            page = person.send(page, {"action": "finish", "kind": "totp", "label": "phone", "code": code}, origin)
            return asked, page.text

    # ---- theft ----

    def _stolen(self) -> Seen:
        _, token = self.world.add_device("other-laptop", "mallory")
        _, device = client.enrol(self.world.port, self.world.pki.root, token, self.world.folder / "other-laptop")
        self._thief = Person(self.world.pki.root, device)
        self._thief.jars[DIRECTORY] = {SESSION: self._alice.jars[DIRECTORY][SESSION]}
        return _refused(self._thief.ask(self.url(DIRECTORY, "/people"), headers=_PROGRAM), "binding_mismatch")

    def _told(self) -> Seen:
        return _refused(self._alice.ask(self.url(DIRECTORY, "/people"), headers=_PROGRAM), "session_revoked")

    # ---- ends ----

    def _ends(self, user: str, end: Callable[[], object]) -> Seen:
        person, url = Person(self.world.pki.root, self._device), self.url(DIRECTORY, "/people")
        with contextlib.closing(person):
            before = person.sign_in(url, user, code=self._code(user)).status_code
            started = time.monotonic()
            end()
            while True:
                answer = person.ask(url, headers=_PROGRAM)
                took = time.monotonic() - started
                if answer.status_code != _OK or took > _PATIENCE_S:
                    break
                time.sleep(_POLL_S)
        seen = _refused(answer, "session_revoked")
        in_time = before == _OK and seen.passed and took <= _PUSH_LIMIT_S
        return Seen(f"{answer.status_code} after {took * 1000:.0f} ms", in_time, seen.code)


def _refused(answer: httpx.Response, code: str) -> Seen:
    found = answer.headers.get("x-gateway-reason", "")
    return Seen(str(answer.status_code), answer.status_code == _UNAUTHENTICATED and found == code, found)
