"""Every page that people see, in a real Chromium against real gateway processes: used, looked at, checked by axe-core.

Each page is seen in light and dark, on a wide and on a narrow screen. With PAGES_PICTURES set to a folder, a picture of
each is left there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, expect, sync_playwright

from gateway.core.request import Peer, RequestFacts
from gateway.demo import world
from gateway.demo.clients import chromium
from gateway.demo.clients import http as client
from gateway.demo.clients.security_agent import agent
from gateway.demo.idp.accounts import PASSWORD
from gateway.demo.world import DIRECTORY, ECHO, GATEWAY, PORTAL, World
from gateway.replies.rendering import Branding
from gateway.replies.replies import deny
from tests.support.paths import TOOLS

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("pages")]

AXE = TOOLS / "axe" / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = os.environ.get("PAGES_PICTURES")
NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1180, "height": 860}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
TOO_WIDE = """() => [...document.querySelectorAll("main, main *")]
  .filter((one) => !one.closest("svg") || one.tagName === "svg")
  .filter((one) => one.getBoundingClientRect().right > one.parentElement.getBoundingClientRect().right + 1)
  .map((one) => one.outerHTML.slice(0, 200))"""
OF_COMPANY = """\
"""
SECOND_ISSUER = """\
  - issuer: https://partners.example
    audiences: ["1"]
    introspection: {{client_id: "1", method: basic, secret: {{file: secrets/login}}}}
    login: {{client_id: "1"}}
policy:"""


def missing(what: str) -> None:
    say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    say(what)


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.exists():
        missing("axe-core is not installed; `sh tests/tools.sh` installs it where npm is there")
    return AXE.read_text(encoding="utf-8")


class Place:
    """The world, and browsers on one enrolled laptop."""

    def __init__(self, running: World, browser: Browser, axe: str) -> None:
        self.world, self.browser, self.axe = running, browser, axe

    def url(self, host: str, path: str = "/") -> str:
        return f"https://{host}:{self.world.port}{path}"

    @contextlib.contextmanager
    def visit(self, **how: Any) -> Iterator[Page]:
        """A new profile's page. Whatever its console complains of fails the test, but for answers that are refusals."""
        context: BrowserContext = self.browser.new_context(viewport=WIDE, **how)
        context.set_default_timeout(15_000)
        page, complaints = context.new_page(), []
        page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        strangers: list[str] = []
        page.on("request", lambda asked: strangers.append(asked.url) if not self.ours(asked.url) else None)
        try:
            yield page
        finally:
            context.close()
        assert strangers == []
        assert [text for text in complaints if not text.startswith("Failed to load resource")] == []

    def ours(self, url: str) -> bool:
        return url.startswith(("data:", self.world.provider_url)) or bool(re.match(r"https://\w+\.localhost:", url))

    def sign_in(self, page: Page, user: str, url: str, *, code: bool = False) -> None:
        page.goto(url)
        page.get_by_role("link", name="127.0.0.1").click()
        page.locator("[name=loginName]").fill(f"{user}@acme.localhost")
        page.locator("[name=password]").fill(PASSWORD)
        if code:
            page.locator("[name=code]").fill(str(self.world.order("code", user=user)["code"]))
        page.locator("button").click()
        page.wait_for_url(re.compile(r"localhost:"))

    def look(self, page: Page, name: str) -> None:
        """The page that stands there is good to look at and to listen to, on every screen, in light and dark."""
        expect(page.locator("h1")).to_have_count(1)
        expect(page.locator("main")).to_have_count(1)
        for colours in ("light", "dark"):
            page.emulate_media(color_scheme=colours, reduced_motion="reduce")
            for size, shape in (("wide", WIDE), ("narrow", NARROW)):
                page.set_viewport_size(shape)
                if PICTURES:
                    page.screenshot(path=Path(PICTURES) / f"{name}-{colours}-{size}.png", full_page=True)
                assert page.evaluate(TOO_WIDE) == [], f"{name}, {size}: wider than the screen, or than what it is in"
                if (colours, size) not in {("light", "wide"), ("dark", "narrow")}:
                    continue
                # By the protocol: the page's own policy would not let it in.
                page.evaluate(self.axe)
                found = page.evaluate("rules => axe.run({runOnly: rules})", RULES)
                assert found["passes"], "it looked at nothing"
                said = [
                    (item["id"], item["impact"], [n["html"] for n in item["nodes"]]) for item in found["violations"]
                ]
                assert said == [], f"{name}, {colours}, {size}"
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(WIDE)


@pytest.fixture(scope="module")
def browser_and_world(axe: str) -> Iterator[tuple[World, Browser]]:
    if not chromium.starts():
        missing("no Chromium starts on this machine")
    patch = pytest.MonkeyPatch()
    patch.setattr(world, "_CONFIG", OF_COMPANY + world._CONFIG.replace("policy:", SECOND_ISSUER, 1))
    with contextlib.ExitStack() as stack:
        stack.callback(patch.undo)
        running = stack.enter_context(World())
        running.start()
        _, token = running.add_device("laptop", "erin")
        _, device = client.enrol(running.port, running.pki.root, token, running.folder / "laptop")
        assert device is not None
        files = (running.pki.folder / "server.pem", running.pki.folder / "server.key")
        port = stack.enter_context(agent(running.port, running.pki.root, device, files))
        key = x509.load_pem_x509_certificate(files[0].read_bytes()).public_key()
        digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
        hosts = (GATEWAY, DIRECTORY, ECHO, PORTAL)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=chromium.installed(),
            args=[
                f"--host-resolver-rules={', '.join(f'MAP {host}:{running.port} 127.0.0.1:{port}' for host in hosts)}",
                f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode('ascii')}",
                "--no-sandbox",
                "--disable-background-networking",
            ],
            env={**os.environ, "TMPDIR": "/tmp"},  # noqa: S108  (Chromium's socket needs a short path)
        )
        stack.callback(browser.close)
        yield running, browser


@pytest.fixture
def place(browser_and_world: tuple[World, Browser], axe: str) -> Place:
    return Place(*browser_and_world, axe)


class Phone:
    """An authenticator app."""

    def __init__(self, secret: str) -> None:
        self._totp = pyotp.TOTP(secret.replace(" ", ""))

    def next(self) -> str:
        """A code that was not used: that of the next time step, which is accepted as well."""
        return self._totp.at(time.time() + 30)

    def now(self) -> str:
        return self._totp.now()


def passkey(page: Page) -> CDPSession:
    """A virtual authenticator that always finds its person."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return session


def enrol_phone(page: Page) -> Phone:
    page.get_by_role("button", name="Add: Authenticator app").click()
    phone = Phone(page.locator(".secret").inner_text())
    page.get_by_label("Six digits").fill(phone.now())
    page.get_by_role("button", name="Turn it on").click()
    return phone


def test_the_first_second_factor_is_set_up_on_the_way_and_the_page_opens(place: Place) -> None:
    people = place.url(DIRECTORY, "/people")
    with place.visit() as page:
        page.goto(people)
        place.look(page, "choose")
        place.sign_in(page, "erin", people)
        expect(page.locator("h1")).to_have_text("Confirm that it is you")
        place.look(page, "step-up-must-enrol")
        page.get_by_role("link", name="Set one up").click()
        place.look(page, "factors-first")
        page.get_by_role("button", name="Add: Authenticator app").click()
        expect(page.get_by_role("img", name="QR code")).to_be_visible()
        place.look(page, "factors-totp")
        phone = Phone(page.locator(".secret").inner_text())
        page.get_by_label("Six digits").fill("000000")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not accepted")
        expect(page.get_by_label("Six digits")).to_be_focused()
        place.look(page, "factors-totp-wrong")
        page.get_by_label("Six digits").fill(phone.now())
        page.get_by_label("A name for it").fill("<b>phone</b>")
        page.get_by_role("button", name="Turn it on").click()
        page.wait_for_url(people)
        assert "Carol Cho" in page.content()

        # The proof is fresh: more factors may be added at once.
        page.goto(place.url(GATEWAY, "/.gateway/factors"))
        expect(page.get_by_text("<b>phone</b>")).to_be_visible()
        key = passkey(page)
        page.get_by_role("button", name="Add: Passkey").click()
        place.look(page, "factors-passkey")
        page.get_by_label("A name for it").fill("laptop")
        page.get_by_role("button", name="Create the passkey").click()
        expect(page.get_by_role("button", name="Remove: laptop")).to_be_visible()
        page.get_by_role("button", name="Add: Recovery codes").click()
        expect(page.locator(".codes li")).to_have_count(10)
        place.look(page, "factors-recovery")
        page.get_by_role("button", name="I have saved them").click()
        expect(page.get_by_text("10 codes left")).to_be_visible()
        place.look(page, "factors")

        # Signed in anew, the person confirms with the passkey, by keyboard alone.
        page.goto(place.url(GATEWAY, "/.gateway/me"))
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("h1")).to_have_text("You are signed out")
        place.look(page, "signed-out")
        place.sign_in(page, "erin", people)
        place.look(page, "step-up-passkey")
        page.get_by_role("link", name="Authenticator app").click()
        page.get_by_label("Six digits").fill("111111")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not accepted")
        place.look(page, "step-up-wrong")
        page.get_by_role("link", name="Recovery codes").click()
        place.look(page, "step-up-recovery")
        page.get_by_role("link", name="Passkey").focus()
        page.keyboard.press("Enter")
        button = page.get_by_role("button", name="Use your passkey")
        for _ in range(8):
            if button.evaluate("here => here === document.activeElement"):
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url(people)
        key.detach()


def test_factors_of_an_older_sign_in_need_a_confirmation(place: Place) -> None:
    with place.visit() as page:
        place.sign_in(page, "bob", place.url(DIRECTORY, "/people"))
        page.get_by_role("link", name="Set one up").click()
        phone = enrol_phone(page)
        page.wait_for_url(place.url(DIRECTORY, "/people"))
    with place.visit() as page:
        place.sign_in(page, "bob", place.url(ECHO, "/headers"))
        place.look(page, "step-up-totp")
        page.goto(place.url(GATEWAY, "/.gateway/factors"))
        place.look(page, "factors-needs-proof")
        page.get_by_role("button", name="Confirm with: Authenticator app").click()
        place.look(page, "factors-prove")
        page.get_by_label("Six digits").fill(phone.next())
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Remove: Authenticator app").click()
        expect(page.get_by_text("You have no second factor yet.")).to_be_visible()


def test_a_key_that_does_not_answer_is_said_and_may_be_tried_again(place: Place) -> None:
    with place.visit() as page:
        place.sign_in(page, "fay", place.url(DIRECTORY, "/people"))
        page.get_by_role("link", name="Set one up").click()
        page.get_by_role("button", name="Add: Passkey").click()
        page.evaluate("() => { navigator.credentials.create = async () => { throw new DOMException('no') } }")
        button = page.get_by_role("button", name="Create the passkey")
        button.click()
        expect(page.get_by_role("status")).to_have_text(re.compile("cancelled. Try again"))
        expect(button).to_be_focused()


def test_codes_need_no_script(place: Place) -> None:
    with place.visit(java_script_enabled=False) as page:
        place.sign_in(page, "alice", place.url(DIRECTORY, "/people"))
        page.get_by_role("link", name="Set one up").click()
        page.get_by_role("button", name="Add: Passkey").click()
        expect(page.get_by_text("Passkeys need JavaScript")).to_be_visible()
        expect(page.get_by_role("button", name="Create the passkey")).to_be_disabled()
        page.get_by_role("link", name="Cancel").click()
        enrol_phone(page)
        page.wait_for_url(place.url(DIRECTORY, "/people"))


def test_sessions_are_seen_and_ended(place: Place) -> None:
    with place.visit() as other, place.visit() as page:
        for one in (other, page):
            place.sign_in(one, "carol", place.url(ECHO, "/headers"), code=True)
        page.goto(place.url(GATEWAY, "/.gateway/me"))
        expect(page.get_by_text("This browser")).to_have_count(1)
        expect(page.locator(".row")).to_have_count(2)
        place.look(page, "me")
        page.get_by_role("button", name=re.compile("^End: Chrome on Linux")).click()
        expect(page.locator(".row")).to_have_count(1)
        place.look(page, "me-alone")


def test_a_denial_says_what_is_missing_and_whom_to_ask(place: Place) -> None:
    with place.visit() as page:
        place.sign_in(page, "carol", place.url(DIRECTORY, "/people"), code=True)
        expect(page.locator("h1")).to_have_text("You cannot open this")
        expect(page.get_by_role("link", name="security@acme.localhost")).to_have_attribute(
            "href", re.compile(r"^mailto:security@acme\.localhost\?subject=Decision%20\w+")
        )
        place.look(page, "deny")
        page.goto(place.url(GATEWAY, "/.gateway/callback/dev?state=x&code=y"))
        place.look(page, "login-expired")


REFUSALS = {
    "trouble": ["upstream_timeout"],
    "nothing": ["route_not_found"],
    "sign-in": ["session_expired"],
    "device": ["device_required", "role_missing"],
    "stolen": ["session_stolen"],
    "attacked": ["account_attacked"],
    "locked": ["account_locked"],
    "second-factor": ["mfa_required"],
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_kind_of_refusal_reads_well(place: Place, name: str) -> None:
    """Drawn here, served in place of a page of the gateway, with the headers that it has."""
    facts = RequestFacts(
        *("GET", DIRECTORY, "/people", ("people",), "", (), (("sec-fetch-mode", "navigate"),), "h2", 0),
        Peer("127.0.0.1", 1),
        "127.0.0.1",
    )
    branding = Branding("Acme", "security@acme.localhost", place.url(GATEWAY, "/.gateway/me"))
    reply = deny(facts, REFUSALS[name], "0197f3c2d1e84b7f", at=1_795_000_000, branding=branding)
    with place.visit() as page:
        page.route(
            "**/*", lambda route: route.fulfill(status=reply.status, headers=dict(reply.headers), body=reply.body)
        )
        page.goto(place.url(DIRECTORY, "/people"))
        place.look(page, f"deny-{name}")
