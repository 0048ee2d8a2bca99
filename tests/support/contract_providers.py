"""OpenID providers that the contract is held against: one small interface over each of them.

`begin(url)` goes where the browser is sent; `sign_in(url)` goes on until it is sent back: the address of that.
"""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx
import pytest

from gateway.config import Introspection, Issuer, Login
from gateway.core import paths
from gateway.demo.idp.accounts import PASSWORD
from gateway.demo.idp.provider import DevProvider, serving
from tests.support.paths import ROOT, TOOLS

ORIGIN = "https://gateway.localhost:8443"
REDIRECT, SIGNED_OUT = f"{ORIGIN}/.gateway/callback/contract", f"{ORIGIN}{paths.LOGOUT}"
PANVA = ROOT / "tests" / "e2e" / "contract" / "panva" / "server.mjs"
INSTALLED = TOOLS / "oidc-provider"
AUDIENCE, SCOPE = "https://api.contract.example/", "read"
ZITADEL = [os.environ.get(name, "") for name in ("ZITADEL_URL", "ZITADEL_PAT")]
_TLS = ssl.create_default_context()
_REDIRECTS, _MOST = frozenset({301, 302, 303, 307}), 20
_FORM = re.compile(r"<form[^>]*method=\"post\"[^>]*>(.*?)</form>", re.DOTALL | re.IGNORECASE)
_ACTION = re.compile(r'<form[^>]*action="([^"]*)"', re.IGNORECASE)
_HIDDEN = re.compile(r'<input type="hidden" name="([\w-]+)" value="([^"]*)"')


@dataclass
class Provider:
    """What all of them have.

    `opaque`: access tokens can be read by their issuer alone. `introspects`: it keeps a record of access tokens, which
    can be asked about and revoked then. `tells_logouts`: it can reach this machine.
    """

    issuer: str
    profile: str
    client: str
    secret: str = field(repr=False)
    api_client: str
    api_secret: str = field(repr=False)
    audience: str
    opaque: bool
    introspects: bool = True
    tells_logouts: bool = True

    def __post_init__(self) -> None:
        self.browser = httpx.Client(trust_env=False, timeout=10, verify=_TLS)
        self.published: dict[str, Any] = {}

    def close(self) -> None:
        self.browser.close()

    def forget(self) -> None:
        """Another browser."""
        self.browser.cookies.clear()

    def config(self, **changes: Any) -> Issuer:
        fields: dict[str, Any] = {
            "issuer": self.issuer,
            "profile": self.profile,
            "audiences": (self.audience,),
            "opaque": self.opaque,
            "introspection": Introspection(client_id=self.api_client, method="basic", cache_s=10),
            "login": Login(client_id=self.client),
        }
        return Issuer(**(fields | changes))

    def for_api(self, url: str) -> str:
        """The same authorization request, for an access token that the API accepts."""
        return url

    def endpoint(self, name: str) -> str:
        if not self.published:
            answer = self.browser.get(f"{self.issuer}/.well-known/openid-configuration")
            self.published = answer.raise_for_status().json()
        return str(self.published[name])

    def post(self, name: str, form: Mapping[str, str], pair: tuple[str, str] | None = None) -> httpx.Response:
        """What an endpoint says to a client, by default the web application."""
        with httpx.Client(trust_env=False, timeout=10, verify=_TLS) as client:
            return client.post(self.endpoint(name), data=dict(form), auth=_basic(pair or (self.client, self.secret)))

    def begin(self, url: str) -> httpx.Response | str:
        """Go to `url` and wherever that leads: a page, or the address at which a client is reached."""
        answer = self.browser.get(url)
        for _ in range(_MOST):
            if answer.status_code not in _REDIRECTS:
                return answer
            url = urljoin(url, answer.headers["location"])
            if url.startswith(ORIGIN):
                return url
            answer = self.browser.get(url)
        raise AssertionError("redirected for ever")

    def submit(self, page: httpx.Response, fields: Mapping[str, str]) -> httpx.Response | str:
        """Send the page's form."""
        action = _ACTION.search(page.text)
        hidden = {name: html.unescape(value) for name, value in _HIDDEN.findall(page.text)}
        url = urljoin(str(page.url), html.unescape(action[1]) if action else "")
        answer = self.browser.post(url, data=hidden | dict(fields))
        if answer.status_code not in _REDIRECTS:
            return answer
        target = urljoin(url, answer.headers["location"])
        return target if target.startswith(ORIGIN) else self.begin(target)

    def sign_in(self, url: str) -> str:
        found = self.begin(url)
        if isinstance(found, httpx.Response):
            found = self.submit(found, self.filled())
        assert isinstance(found, str), found.text
        return found

    def filled(self) -> dict[str, str]:
        """What the person types into the form."""
        raise NotImplementedError

    def sign_out(self, url: str) -> str:
        """End the session at the provider: where the browser is sent back to."""
        found = self.begin(url)
        if isinstance(found, httpx.Response):
            found = self.submit(found, {"logout": "yes"})
        assert isinstance(found, str), found.text
        return found


class Emulator(Provider):
    """The development provider, by its form."""

    def __init__(self, dev: DevProvider, logout_uri: str) -> None:
        dev.instance.app(redirect=REDIRECT, post_logout=SIGNED_OUT, logout_uri=logout_uri)
        super().__init__(
            dev.issuer, "zitadel", dev.app_client, dev.app_secret, dev.api_client, dev.api_secret, dev.project, False
        )
        self.dev = dev

    def filled(self) -> dict[str, str]:
        return {"loginName": "alice@acme.localhost", "password": PASSWORD, "code": self.dev.instance.code("alice")}


class Panva(Provider):
    """npm's oidc-provider. One client for people; the API is a resource indicator (RFC 8707)."""

    def __init__(self, issuer: str, settings: Mapping[str, Any]) -> None:
        client, api = settings["client"], settings["api"]
        opaque = settings["mode"] == "opaque"
        pairs = (client["id"], client["secret"], api["id"], api["secret"])
        super().__init__(issuer, "strict", *pairs, settings["audience"], opaque, introspects=opaque)

    def for_api(self, url: str) -> str:
        return f"{url}&{urlencode({'resource': AUDIENCE})}".replace("scope=openid", f"scope={SCOPE}+openid")

    def filled(self) -> dict[str, str]:
        return {"login": "alice", "password": PASSWORD}


class Zitadel(Provider):
    """A Zitadel by its APIs: a project, two applications and a person, made for the run and removed after it.

    The token's user must be IAM_OWNER and IAM_LOGIN_CLIENT. `logout_uri` empty: it cannot reach us.
    """

    def __init__(
        self, url: str, token: str, logout_uri: str, person: tuple[str, str] | None = None, *, opaque: bool = False
    ) -> None:
        self._api = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=20
        )
        self._user = ""
        mark = secrets.token_hex(4)
        self._org = self._ask("org", "ListOrganizations", query={"limit": 1})["result"][0]["id"]
        made = self._ask("project", "CreateProject", organizationId=self._org, name=f"contract-{mark}")
        self._project = made.get("projectId") or made["id"]
        try:
            self._person = person or self._somebody(mark)
            web = self._application(
                "oidcConfiguration",
                redirectUris=[REDIRECT],
                postLogoutRedirectUris=[SIGNED_OUT],
                responseTypes=["OIDC_RESPONSE_TYPE_CODE"],
                grantTypes=["OIDC_GRANT_TYPE_AUTHORIZATION_CODE", "OIDC_GRANT_TYPE_REFRESH_TOKEN"],
                applicationType="OIDC_APP_TYPE_WEB",
                authMethodType="OIDC_AUTH_METHOD_TYPE_BASIC",
                accessTokenType="OIDC_TOKEN_TYPE_BEARER" if opaque else "OIDC_TOKEN_TYPE_JWT",
                backChannelLogoutUri=logout_uri,
                loginVersion={"loginV2": {}},
            )
            api = self._application("apiConfiguration", authMethodType="API_AUTH_METHOD_TYPE_BASIC")
        except BaseException:
            self._remove()
            raise
        pairs = (web["clientId"], web["clientSecret"], api["clientId"], api["clientSecret"])
        super().__init__(url, "zitadel", *pairs, self._project, opaque, tells_logouts=bool(logout_uri))

    def close(self) -> None:
        super().close()
        self._remove()

    def _remove(self) -> None:
        if self._user:
            self._api.delete(f"/v2/users/{self._user}")
        self._api.post("/zitadel.project.v2.ProjectService/DeleteProject", json={"projectId": self._project})
        self._api.close()

    def sign_in(self, url: str) -> str:
        """As a login client does it: a session with a password, and a callback made for it."""
        answer = self.browser.get(url)
        target: str = urljoin(url, answer.headers.get("location", ""))
        if target.startswith(REDIRECT):
            return target
        asked = parse_qs(urlsplit(target).query)["authRequest"][0]
        name, password = self._person
        checks = {"user": {"loginName": name}, "password": {"password": password}}
        session = self._ask("session", "CreateSession", wait=True, checks=checks)
        proof = {name: session[name] for name in ("sessionId", "sessionToken")}
        back = self._ask("oidc", "CreateCallback", authRequestId=asked, session=proof)
        return str(back["callbackUrl"])

    def _somebody(self, mark: str) -> tuple[str, str]:
        name, password = f"contract-{mark}", f"Aa1!{secrets.token_urlsafe(16)}"
        human = {
            "profile": {"givenName": "Contract", "familyName": "Test"},
            "email": {"email": f"{name}@contract.example", "isVerified": True},
            "password": {"password": password, "changeRequired": False},
        }
        made = self._ask("user", "CreateUser", organizationId=self._org, username=name, human=human)
        self._user = made["id"]
        return name, password

    def _application(self, kind: str, **settings: Any) -> dict[str, str]:
        wanted: dict[str, Any] = {"projectId": self._project, "name": kind, kind: settings}
        made = self._ask("application", "CreateApplication", **wanted)
        found: dict[str, str] = made[kind]
        return found

    def _ask(self, service: str, method: str, *, wait: Any = False, **value: Any) -> dict[str, Any]:
        """Connect. What was made a moment ago may not be found yet: `wait` asks again for five seconds."""
        path = f"/zitadel.{service}.v2.{_SERVICES.get(service, service.capitalize())}Service/{method}"
        until = time.monotonic() + 5
        while True:
            answer = self._api.post(path, json=value)
            if answer.is_success:
                found: dict[str, Any] = answer.json()
                return found
            assert wait, f"{method}: {answer.status_code} {answer.text}"
            assert time.monotonic() < until, f"{method}: {answer.status_code} {answer.text}"
            time.sleep(0.2)


_SERVICES = {"oidc": "OIDC", "org": "Organization"}


def _basic(pair: tuple[str, str]) -> httpx.BasicAuth:
    """Both halves form-urlencoded (RFC 6749 section 2.3.1)."""
    return httpx.BasicAuth(*(urlencode({"": part})[1:] for part in pair))


@contextmanager
def emulator(logout_uri: str) -> Iterator[Provider]:
    with serving() as dev:
        yield Emulator(dev, logout_uri)


@contextmanager
def emulator_by_api(logout_uri: str) -> Iterator[Provider]:
    """The emulator as a Zitadel is driven, with opaque tokens: what drives a real one is proven this way too."""
    with serving() as dev:
        token = dev.instance.apps.machine("contract", ["IAM_OWNER", "IAM_LOGIN_CLIENT"])
        yield Zitadel(dev.issuer, token, logout_uri, ("alice@acme.localhost", PASSWORD), opaque=True)


def need_panva() -> None:
    """Without npm's provider there is nothing to compare with: a skip here, a failure in CI."""
    say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    if shutil.which("node") is None:
        say("no node on this machine, so no oidc-provider (tests/tools.sh installs both)")
    if not (INSTALLED / "node_modules" / "oidc-provider").is_dir():
        say("no oidc-provider in .tools (tests/tools.sh installs it where npm is)")


@contextmanager
def panva(mode: str, logout_uri: str, **changes: Any) -> Iterator[Panva]:
    """npm's provider as a process of its own. `changes` replaces settings, as panva/server.mjs names them."""
    settings: dict[str, Any] = {
        "mode": mode,
        "audience": AUDIENCE,
        "scope": SCOPE,
        "roles": ["staff"],
        "client": {"id": "gateway", "secret": secrets.token_urlsafe(24) + "/+ %"},
        "api": {"id": "gateway-api", "secret": secrets.token_urlsafe(24)},
        "redirect_uris": [REDIRECT],
        "post_logout_redirect_uris": [SIGNED_OUT],
        "logout_uri": logout_uri,
        "people": {
            "alice": {"password": PASSWORD, "name": "Alice Adler", "email": "alice@acme.localhost", "sub": "alice-1"}
        },
    } | changes
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ca = settings.pop("ca", None)
    process = subprocess.Popen(
        ["node", str(PANVA)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=INSTALLED,
        env=environment | ({"NODE_EXTRA_CA_CERTS": str(ca)} if ca else {}),
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "oidc-provider did not start"
        yield Panva(json.loads(line)["issuer"], settings)
    finally:
        with process:
            process.kill()
