"""An issuer for these tests: one served by the development provider, one made of documents in memory."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.adapters.http import HttpxClient
from gateway.config import Introspection, Issuer
from gateway.core.ports.http import HttpAnswer, Unreachable
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.demo.idp.provider import DevProvider, serving
from gateway.demo.idp.token_issuer import Key
from gateway.identity.bearer.access_tokens import TokenReader, TrustedIssuer
from gateway.identity.oidc.client_auth import BasicCredential
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.oidc.introspection import Introspector

NOW = 1_800_000_000.0
STATIC = "https://id.example.com"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


_CLOCK = Clock()


@pytest.fixture
def clock() -> Clock:
    _CLOCK.now = NOW
    return _CLOCK


@pytest.fixture(scope="session")
def served() -> Iterator[DevProvider]:
    with serving(clock=_CLOCK) as provider:
        yield provider


@pytest.fixture
def provider(served: DevProvider, clock: Clock) -> Iterator[DevProvider]:
    keys = list(served.keys)
    served.asked.clear()
    yield served
    served.mend()
    for user in served.people:
        served.end_session(user)
    served.keys = keys


@pytest.fixture
async def http() -> AsyncIterator[HttpxClient]:
    client = HttpxClient(timeout_s=3)
    yield client
    await client.close()


def facts(*authorization: str) -> RequestFacts:
    return RequestFacts(
        method="GET",
        host="staff.example.com",
        path="/",
        segments=(),
        query="",
        query_fields=(),
        headers=tuple(("authorization", value) for value in authorization),
        protocol="h2",
        content_length=None,
        peer=Peer("192.0.2.1", 4711),
        client_ip="192.0.2.1",
    )


def route(**changes: Any) -> Route:
    return Route(service="staff", host="staff.example.com", **changes)


@dataclass
class Reading:
    """A reader, and a short way to ask it."""

    reader: TokenReader

    async def __call__(self, token: str, **changes: Any) -> Any:
        return await self.reader.read(facts(f"Bearer {token}"), route(**changes))


@pytest.fixture
async def reading(provider: DevProvider, http: HttpxClient, clock: Clock) -> AsyncIterator[Callable[..., Reading]]:
    """Makes readers of the provider's tokens; keywords change the issuer's configuration."""
    made: list[TokenReader] = []

    def make(*, introspects: bool = True, **changes: Any) -> Reading:
        introspection = Introspection(client_id=provider.api_client, method="basic", cache_s=10)
        fields: dict[str, Any] = {
            "issuer": provider.issuer,
            "profile": "zitadel",
            "audiences": (provider.project,),
            "introspection": introspection,
            "opaque": True,
        }
        config = Issuer(**(fields | changes))
        directory = IssuerDirectory(config, http, clock)
        credential = BasicCredential(provider.api_client, provider.api_secret.encode())
        introspector = Introspector(config, directory, http, credential, clock) if introspects else None
        made.append(TokenReader([TrustedIssuer(config, directory, introspector)], clock))
        return Reading(made[-1])

    yield make
    for reader in made:
        await reader.close()


@dataclass
class StaticIssuer:
    """An `HttpClient` that is its own issuer: documents in memory, and everything that can be wrong with them."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    discovery: dict[str, Any] = field(default_factory=dict)
    keys_status: int = 200
    discovery_status: int = 200
    keys_body: bytes | None = None
    cache_control: str = "max-age=300, must-revalidate"
    hangs: bool = False
    is_down: bool = False
    answer: HttpAnswer | None = None
    asked: Counter[str] = field(default_factory=Counter)
    forms: list[tuple[dict[str, str], dict[str, str]]] = field(default_factory=list)

    async def get(self, url: str, _headers: Any = None) -> HttpAnswer:
        name = "discovery" if url.endswith("/.well-known/openid-configuration") else "keys"
        self.asked[name] += 1
        await self._trouble()
        if name == "discovery":
            document = {
                "issuer": STATIC,
                "jwks_uri": f"{STATIC}/keys",
                "introspection_endpoint": f"{STATIC}/introspect",
                **self.discovery,
            }
            return HttpAnswer(self.discovery_status, {}, json.dumps(document).encode())
        body = json.dumps({"keys": self.keys}).encode() if self.keys_body is None else self.keys_body
        return HttpAnswer(self.keys_status, {"cache-control": self.cache_control}, body)

    async def post_form(self, _url: str, form: Any, headers: Any = None) -> HttpAnswer:
        self.asked["introspect"] += 1
        self.forms.append((dict(form), dict(headers or {})))
        await self._trouble()
        return self.answer or HttpAnswer(500, {}, b"")

    async def close(self) -> None:
        pass

    def say(self, document: Any, status: int = 200) -> None:
        self.answer = HttpAnswer(status, {}, json.dumps(document).encode())

    async def _trouble(self) -> None:
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.sleep(60)
        if self.is_down:
            raise Unreachable("ConnectError")


def static_config(**changes: Any) -> Issuer:
    fields: dict[str, Any] = {
        "issuer": STATIC,
        "profile": "zitadel",
        "audiences": ("project",),
        "introspection": Introspection(client_id="gateway", method="basic", cache_s=10),
    }
    return Issuer(**(fields | changes))


@pytest.fixture(scope="session")
def key() -> Key:
    return Key()


@pytest.fixture(scope="session")
def other_key() -> Key:
    return Key()


@pytest.fixture
def static(key: Key) -> StaticIssuer:
    return StaticIssuer(keys=[key.jwk()])


@pytest.fixture
async def directory(static: StaticIssuer, clock: Clock) -> AsyncIterator[IssuerDirectory]:
    made = IssuerDirectory(static_config(), static, clock, timeout_s=0.2)
    yield made
    await made.close()


@pytest.fixture
async def static_reading(static: StaticIssuer, clock: Clock) -> AsyncIterator[Callable[..., Reading]]:
    """Makes readers of the static issuer's tokens, without introspection."""
    made: list[TokenReader] = []

    def make(**changes: Any) -> Reading:
        config = static_config(**changes)
        made.append(TokenReader([TrustedIssuer(config, IssuerDirectory(config, static, clock))], clock))
        return Reading(made[-1])

    yield make
    for reader in made:
        await reader.close()


def claims(**changes: Any) -> dict[str, Any]:
    """An access token's claims at the static issuer; None removes one."""
    base: dict[str, Any] = {
        "iss": STATIC,
        "sub": "person",
        "aud": ["client", "project"],
        "exp": int(NOW) + 600,
        "iat": int(NOW),
        "nbf": int(NOW),
        "client_id": "client",
        "jti": "V2_1-at_2",
    }
    return {name: value for name, value in (base | changes).items() if value is not None}
