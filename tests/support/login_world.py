"""A sign-in world: an OpenID provider in memory, a browser with a cookie jar for each host, two services."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from gateway.adapters.sqlite.store import SqliteStore
from gateway.config import Issuer
from gateway.config import Login as LoginConfig
from gateway.core.canonical import admit
from gateway.core.navigation import Redirect, Resume
from gateway.core.ports.documents import Document
from gateway.core.ports.http import HttpAnswer, Unreachable
from gateway.core.reasons import REASONS, Refusal
from gateway.core.request import Peer, RawRequest, RequestFacts, RequestLimits
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity
from gateway.demo.idp.token_issuer import Key
from gateway.identity.account.sessions import OwnSessions
from gateway.identity.login.flow import Login, LoginCompleted
from gateway.identity.login.pending_requests import PendingRequests
from gateway.identity.login.return_ticket import ReturnTickets
from gateway.identity.oidc.client_auth import BasicCredential
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.oidc.relying_party import RelyingParty
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.cookies import BrowserBinder, CookieReader
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions
from gateway.identity.sessions.token_refresh import Refresher
from tests.support.issuer_world import Clock

ISSUER, OTHER_ISSUER = "https://id.example.com", "https://other.example.com"
HOST, WIKI, SHOP = "gw.example.com", "wiki.example.com", "shop.example.com"
PROJECT, CLIENT = "259254020357488642", "243864426485212395"
ROLES = f"urn:zitadel:iam:org:project:{PROJECT}:roles"
LAPTOP, PHONE = Device("laptop", "L" * 43), Device("phone", "P" * 43)
WIKI_ROUTE = Route("wiki", WIKI)
PAGE = {"sec-fetch-mode": "navigate", "accept": "text/html", "user-agent": "Firefox"}
KEY = Key()


def origin(host: str) -> str:
    return f"https://{host}:8443"


def random() -> str:
    return secrets.token_urlsafe(32)


class MemoryDocuments:
    """Meets `Documents`, for one process."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.kept: dict[tuple[str, str], tuple[Document, str]] = {}
        self._versions = itertools.count(1, 7)  # a version is given once, and nobody guesses the next

    async def get(self, collection: str, key: str, now: float) -> Document | None:
        found = self.kept.get((collection, key))
        return found[0] if found is not None and found[0].expires_at > now else None

    async def put(
        self, collection: str, key: str, value: bytes, expires_at: float, *, version: int, group: str = ""
    ) -> bool:
        await asyncio.sleep(0)
        there = await self.get(collection, key, self.clock())
        if version != (0 if there is None else there.version):
            return False
        self._write(collection, key, value, expires_at, group)
        return True

    async def overwrite(self, collection: str, key: str, value: bytes, expires_at: float, *, group: str = "") -> None:
        await asyncio.sleep(0)
        self._write(collection, key, value, expires_at, group)

    def _write(self, collection: str, key: str, value: bytes, expires_at: float, group: str) -> None:
        self.kept[collection, key] = Document(key, value, next(self._versions), expires_at), group

    async def take(self, collection: str, key: str, now: float) -> Document | None:
        found = await self.get(collection, key, now)
        self.kept.pop((collection, key), None)
        await asyncio.sleep(0)
        return found

    async def delete(self, collection: str, key: str) -> bool:
        return self.kept.pop((collection, key), None) is not None

    async def list(self, collection: str, group: str, now: float) -> list[Document]:
        return [
            document
            for (name, _), (document, of) in self.kept.items()
            if name == collection and of == group and document.expires_at > now
        ]

    def of(self, collection: str) -> list[dict[str, Any]]:
        return [json.loads(item.value) for (name, _), (item, _) in self.kept.items() if name == collection]


@dataclass
class Provider:
    """An `HttpClient` that is its own OpenID provider: codes, PKCE, rotating refresh tokens."""

    clock: Clock
    issuer: str = ISSUER
    secret: str = "s3cret /+%"
    discovery: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, Any] = field(default_factory=dict)
    life_s: int = 900
    key: Key = KEY
    status: int = 200
    is_down: bool = False
    slow_s: float = 0.0
    roles: tuple[str, ...] = ("staff",)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refreshable: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def authorize(self, url: str, /, **sent: str) -> str:
        """What the browser is sent back to after a sign-in at `url`."""
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert parts.path == "/authorize"
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query | {"auth_time": str(int(self.clock()))}
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']} | sent)}"

    async def get(self, url: str, _headers: Any = None) -> HttpAnswer:
        if self.is_down:
            raise Unreachable("ConnectError")
        if url.endswith("/.well-known/openid-configuration"):
            paths = {"jwks_uri": "/keys", "authorization_endpoint": "/authorize", "token_endpoint": "/token"}
            document: dict[str, Any] = {name: self.issuer + path for name, path in paths.items()}
            document |= {"issuer": self.issuer, "end_session_endpoint": self.issuer + "/end"} | self.discovery
            return HttpAnswer(200, {}, json.dumps(document).encode())
        return HttpAnswer(200, {"cache-control": "max-age=300"}, json.dumps({"keys": [self.key.jwk()]}).encode())

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        assert url == self.issuer + "/token"
        assert "secret" not in json.dumps(dict(form))
        self.asked[form["grant_type"]] += 1
        await asyncio.sleep(self.slow_s)
        if self.is_down:
            raise Unreachable("ConnectError")
        credential = BasicCredential(CLIENT, self.secret.encode())
        if dict(headers or {}) != credential.authenticate("", 0)[0]:
            return HttpAnswer(401, {}, b'{"error":"invalid_client"}')
        if self.status != 200:
            return HttpAnswer(self.status, {}, b"{}")
        if form["grant_type"] == "refresh_token":
            asked = self.refreshable.pop(form["refresh_token"], None)
        else:
            asked = self.codes.pop(form["code"], None)
            made = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
            if asked and (asked["code_challenge"] != made.decode() or asked["redirect_uri"] != form["redirect_uri"]):
                asked = None
        if asked is None:
            return HttpAnswer(400, {}, b'{"error":"invalid_grant"}')
        return self._tokens(asked, renewed=form["grant_type"] == "refresh_token")

    async def close(self) -> None:
        pass

    def _tokens(self, asked: dict[str, Any], *, renewed: bool) -> HttpAnswer:
        now = int(self.clock())
        access, refresh = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.refreshable[refresh] = asked
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims = {
            "iss": self.issuer,
            "sub": "ada",
            "aud": [CLIENT, PROJECT],
            "azp": CLIENT,
            "exp": now + 900,
            "iat": now,
            "auth_time": int(asked["auth_time"]),
            "nonce": None if renewed else asked["nonce"],
            "amr": ["pwd", "otp", "mfa"],
            "sid": "sid-1",
            "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
            "name": "Ada",
            "email": "ada@example.com",
            "email_verified": True,
            ROLES: {role: {"org": "acme"} for role in self.roles},
        } | self.claims
        token = self.key.sign({name: value for name, value in claims.items() if value is not None}, self.headers)
        document = {
            "access_token": access,
            "refresh_token": refresh,
            "id_token": token,
            "token_type": "Bearer",
            "expires_in": self.life_s,
        } | self.answer
        kept = {name: value for name, value in document.items() if value is not None}
        return HttpAnswer(200, {}, json.dumps(kept).encode())


@dataclass
class Browser:
    """A browser: cookies by host, the device it shows."""

    device: Device | None = None
    jars: dict[str, dict[str, str]] = field(default_factory=dict)

    def keep(self, host: str, cookies: tuple[str, ...]) -> None:
        for text in cookies:
            pair, *attributes = text.split("; ")
            assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} <= set(attributes)
            assert pair.startswith("__Host-")
            name, _, value = pair.partition("=")
            jar = self.jars.setdefault(host, {})
            if "Max-Age=0" in attributes:
                jar.pop(name, None)
            else:
                jar[name] = value

    def facts(self, url: str, method: str = "GET", cookie: str | None = None, **headers: str) -> RequestFacts:
        """The request as the gateway sees it, through its own canonicaliser."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        sent = "; ".join(f"{name}={value}" for name, value in self.jars.get(host, {}).items())
        fields = PAGE | {name.replace("_", "-"): value for name, value in headers.items()}
        fields |= {"host": host} | ({"cookie": cookie or sent} if cookie or sent else {})
        target = (parts.path + (f"?{parts.query}" if parts.query else "")).encode()
        raw = RawRequest(method.encode(), b"", target, [(n.encode(), v.encode()) for n, v in fields.items()], "1.1")
        # Fuzzed parameters may be long: what is under test here is behind the limits of a head.
        found = admit(raw, Peer("192.0.2.7", 4711, sni=host), RequestLimits(target_bytes=1 << 20, header_bytes=1 << 20))
        assert isinstance(found, RequestFacts), found
        return found


class Worker:
    """What one worker process has."""

    def __init__(self, world: World) -> None:
        documents, clock = world.documents, world.clock
        self.logins = LoginSessions(documents, world.store, clock, random)
        self.cookies = BrowserSessions(documents, clock, random)
        self.held = PendingRequests(documents, clock, random, origin)
        self.directories = []
        self.parties = []
        for provider, config in world.issuers:
            directory = IssuerDirectory(config, provider, clock)
            self.directories.append(directory)
            credential = BasicCredential(CLIENT, world.provider.secret.encode())
            back = f"{origin(HOST)}/.gateway/callback/{config.slug}"
            self.parties.append(RelyingParty(config, directory, provider, credential, back, clock))
        by_issuer = {party.config.issuer: party for party in self.parties}
        self.refresher = Refresher(self.logins, documents, by_issuer, clock, random)
        self.handover = ReturnTickets(
            documents, self.cookies, self.logins, self.held, host=HOST, origin=origin, clock=clock, random=random
        )
        self.login = Login(
            self.parties,
            documents,
            self.held,
            self.logins,
            self.cookies,
            self.handover,
            host=HOST,
            clock=clock,
            random=random,
        )
        self.own = OwnSessions(
            self.login, self.logins, self.cookies, by_issuer, world.store, origin=origin(HOST), random=random
        )
        self.reader = CookieReader(self.cookies, self.logins, self.refresher, by_issuer, clock)
        self.binder = BrowserBinder(self.logins, world.store, clock)

    async def close(self) -> None:
        await self.refresher.close()
        for directory in self.directories:
            await directory.close()


class World(Worker):
    """One worker, and everything that all workers share."""

    def __init__(self, folder: Path, *, others: bool = False, **login: Any) -> None:
        self.clock = Clock()
        self.documents = MemoryDocuments(self.clock)
        self.store = SqliteStore(folder / "gateway.sqlite", bytes(32), self.clock)
        self.provider, self.other = Provider(self.clock), Provider(self.clock, OTHER_ISSUER)
        self.issuers = [(self.provider, config(ISSUER, **login))]
        if others:
            self.issuers.append((self.other, config(OTHER_ISSUER)))
        super().__init__(self)

    async def close(self) -> None:
        await super().close()
        await self.store.close()

    # ---- a person's way ----

    async def leave(self, browser: Browser, url: str, route: Route = WIKI_ROUTE, **request: Any) -> str:
        """From a page without a session to the start of the sign-in: its address."""
        body = request.pop("body", b"")
        facts = browser.facts(url, **request)
        way = await self.login.start(facts, route, body)
        assert isinstance(way, Redirect), way
        browser.keep(facts.host, way.cookies)
        return way.location

    async def to_issuer(self, browser: Browser, url: str, **request: Any) -> str:
        """On to the issuer: the authorization request."""
        begun = await self.login.begin(browser.facts(await self.leave(browser, url, **request)), browser.device)
        assert isinstance(begun, Redirect), begun
        browser.keep(HOST, begun.cookies)
        return begun.location

    async def back(self, browser: Browser, url: str, slug: str | None = None) -> LoginCompleted | Refusal:
        """Back from the issuer."""
        facts = browser.facts(url)
        outcome = await self.login.callback(facts, browser.device, slug or facts.segments[-1])
        if isinstance(outcome, LoginCompleted):
            browser.keep(HOST, outcome.redirect.cookies)
        return outcome

    async def arrive(self, browser: Browser, url: str) -> Redirect | Resume | Refusal:
        """With the ticket to the service."""
        facts = browser.facts(url)
        outcome = await self.handover.arrive(facts, browser.device)
        if not isinstance(outcome, Refusal):
            browser.keep(facts.host, outcome.cookies)
        return outcome

    async def sign_in(
        self, browser: Browser, url: str = f"https://{WIKI}/page?x=1", **request: Any
    ) -> Redirect | Resume:
        """The whole way."""
        granted = await self.back(browser, self.provider.authorize(await self.to_issuer(browser, url, **request)))
        assert isinstance(granted, LoginCompleted), granted
        outcome = await self.arrive(browser, granted.redirect.location)
        assert not isinstance(outcome, Refusal), outcome
        return outcome

    async def ask(
        self, browser: Browser, url: str = f"https://{WIKI}/", route: Route = WIKI_ROUTE, **request: Any
    ) -> Any:
        """Stages 5 and 6: the session, None without a cookie, or the reason of the refusal."""
        facts = browser.facts(url, **request)
        identity = await self.reader.read(facts, route)
        if isinstance(identity, Identity):
            bound = await self.binder.bind(identity, browser.device, facts, route)
            return reason_of(bound) if isinstance(bound, Refusal) else bound
        return None if identity is None else reason_of(identity)

    async def only_login(self) -> LoginSession:
        (login,) = await self.logins.of_subject(ISSUER, "ada")
        return login


def reason_of(outcome: Any) -> str:
    assert isinstance(outcome, Refusal), outcome
    assert outcome.reason in REASONS
    return outcome.reason


def config(issuer: str, **login: Any) -> Issuer:
    return Issuer(
        issuer=issuer,
        profile="zitadel",
        audiences=(PROJECT,),
        login=LoginConfig(client_id=CLIENT, **login),
    )


def twin(browser: Browser, **changes: Any) -> Browser:
    """A thief's browser: the same cookies."""
    return replace(browser, jars={host: dict(jar) for host, jar in browser.jars.items()}, **changes)
