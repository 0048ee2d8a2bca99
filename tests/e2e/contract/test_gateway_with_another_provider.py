"""A real gateway process whose only issuer is no Zitadel: npm's oidc-provider, with either kind of access token."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from html import unescape
from urllib.parse import urlencode, urljoin, urlsplit

import httpx
import pytest

from gateway.core import paths as own
from gateway.core.cookies import SESSION, SSO
from gateway.demo.clients.headless_browser import Person
from gateway.demo.clients.http import Browser
from gateway.demo.idp.accounts import PASSWORD
from gateway.demo.world import ECHO, GATEWAY, World
from gateway.identity.devices.ca_files import found_pki, write_file
from tests.support.contract_gateway import gateway_at
from tests.support.contract_providers import AUDIENCE, REDIRECT, Panva, need_panva, panva
from tests.support.paths import POLICIES

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("contract-gateway")]
PROGRAM = {"accept": "application/json"}
_CONFIG = """\
version: 1
name: Acme
contact: security@acme.localhost
host: {gateway}
listen: {{address: 127.0.0.1, port: {port}, workers: 1, drain_s: 2}}
admin: {{port: {admin_port}}}
tls: [{{certificate: pki/server.pem, key: pki/server.key}}]
issuers:
  - issuer: {issuer}
    profile: strict
    audiences: ["{audience}"]
    opaque: {opaque}
    introspection: {{client_id: "{api}", method: basic, secret: {{file: secrets/api}}}}
    login: {{client_id: "{client}", secret: {{file: secrets/login}}, slug: other}}
policy: {{path: policies}}

services:
  echo:
    host: {echo}
    upstream: {echo_url}
    device: optional
    introspect: {introspect}
    allow: {{roles: [staff]}}
"""


class OtherWorld(World):
    """The echo service and a gateway in front of it, for the people of `provider`."""

    def own(self, path: str = "") -> str:
        return f"https://{GATEWAY}:{self.port}{path}"

    def url(self, path: str = "/") -> str:
        return f"https://{ECHO}:{self.port}{path}"

    def prepare(self) -> None:
        """What the provider must know of: the CA."""
        self.logs.mkdir()
        found_pki(self.pki.folder, [GATEWAY, ECHO], now=time.time(), crl_life_s=86_400)

    def serve(self, provider: Panva) -> None:
        shutil.copytree(POLICIES, self.policies, ignore=shutil.ignore_patterns("cases", ".*", "OPA_VERSION"))
        self._spawn("echo", ["gateway.demo.services", "echo"])
        self.echo_url = self._processes.first_line("echo")
        (self.folder / "secrets").mkdir(mode=0o700)
        for name, secret in (("api", provider.api_secret), ("login", provider.secret)):
            write_file(self.folder / "secrets" / name, secret.encode(), 0o600)
        text = _CONFIG.format(
            gateway=GATEWAY,
            port=self.port,
            admin_port=self.admin_port,
            issuer=provider.issuer,
            audience=AUDIENCE,
            opaque=str(provider.opaque).lower(),
            api=provider.api_client,
            client=provider.client,
            echo=ECHO,
            echo_url=self.echo_url,
            introspect="1" if provider.introspects else "never",
        )
        self.config.write_text(text, encoding="utf-8")
        self._spawn("gateway", ["gateway", "serve", "-c", str(self.config)])
        self._wait_ready()


class Place:
    """The world, its provider, and people with browsers."""

    def __init__(self, world: OtherWorld, provider: Panva) -> None:
        self.world, self.provider = world, provider
        self.people: list[Person] = []

    def person(self) -> Person:
        self.people.append(Person(self.world.pki.root))
        return self.people[-1]

    def signed_in(self, path: str = "/headers") -> Person:
        person = self.person()
        page = person.open(self.world.url(path))
        assert person.visited[-1].startswith(self.provider.issuer), page.text
        answer = person.open(person.visited[-1], {"login": "alice", "password": PASSWORD}, origin="null")
        assert answer.status_code == 200, answer.text
        assert person.visited[-1] == self.world.url(path)
        return person

    def confirm_sign_out(self, person: Person, page: httpx.Response) -> httpx.Response:
        """The provider's own question."""
        action = re.search(r'action="([^"]*)"', page.text)
        secret = re.search(r'name="xsrf" value="([^"]*)"', page.text)
        assert action is not None, page.text
        assert secret is not None, page.text
        fields = {"xsrf": unescape(secret[1]), "logout": "yes"}
        return person.open(urljoin(person.visited[-1], unescape(action[1])), fields, origin=self.provider.issuer)

    def reason(self, person: Person) -> str:
        answer = person.ask(self.world.url("/headers"), headers=PROGRAM)
        return str(answer.headers.get("x-gateway-reason", ""))


@pytest.fixture(scope="module", params=["jwt", "opaque"])
def running(request: pytest.FixtureRequest) -> Iterator[Place]:
    need_panva()
    with OtherWorld() as world:
        world.prepare()
        settings = {
            "redirect_uris": [world.own("/.gateway/callback/other"), REDIRECT],
            "post_logout_redirect_uris": [world.own(own.LOGOUT)],
            "ca": world.pki.root,
        }
        with panva(request.param, world.own("/.gateway/backchannel/other"), **settings) as provider:
            world.serve(provider)
            yield Place(world, provider)
            provider.close()


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    yield running
    for person in running.people:
        person.close()
    running.people.clear()
    running.provider.forget()


def test_a_person_signs_in_and_opens_the_service(place: Place) -> None:
    person = place.signed_in("/headers?x=%2Fy")
    assert SESSION in person.jars[ECHO]
    names = {name.lower(): value for name, value in person.ask(place.world.url("/headers")).json()["headers"]}
    assert "x-gateway-jwt-assertion" in names
    assert "cookie" not in names
    me = person.ask(place.world.own("/.gateway/me"), headers=PROGRAM).json()
    assert len(me["sessions"]) >= 1


async def test_an_access_token_opens_the_service_and_nonsense_does_not(place: Place) -> None:
    async with gateway_at(place.provider) as client:
        tokens, _ = await client.sign_in(api=True)
    browser = Browser(place.world.port, ECHO, place.world.pki.root)
    try:
        opened = browser.ask("/headers", tokens.access_token, headers=PROGRAM)
        assert opened.status_code == 200, opened.text
        for token in ("garbage", tokens.id_token):
            refused = browser.ask("/headers", token, headers=PROGRAM)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
    finally:
        browser.close()


def test_a_sign_out_at_the_provider_ends_the_session_here(place: Place) -> None:
    person, other = place.signed_in(), place.signed_in()
    assert place.reason(person) == ""
    query = urlencode({"client_id": place.provider.client})
    page = person.open(f"{place.provider.endpoint('end_session_endpoint')}?{query}")
    place.confirm_sign_out(person, page)
    assert place.reason(person) == "session_revoked"
    assert place.reason(other) == "", "another login of the same person goes on"


def test_a_sign_out_here_goes_to_the_provider_and_comes_back(place: Place) -> None:
    person = place.signed_in()
    csrf = person.ask(place.world.own("/.gateway/me"), headers=PROGRAM).json()["csrf"]
    page = person.open(place.world.own("/.gateway/logout"), {"csrf": csrf}, origin=place.world.own())
    assert person.visited[-1].startswith(place.provider.issuer)
    answer = place.confirm_sign_out(person, page)
    assert answer.status_code == 200
    assert person.visited[-1].startswith(place.world.own(own.LOGOUT))
    assert SSO not in person.jars[GATEWAY]
    assert place.reason(person) == "session_revoked"
    person.open(place.world.url("/headers"))
    assert urlsplit(person.visited[-1]).path.startswith("/interaction/"), "the provider asks for the password again"
