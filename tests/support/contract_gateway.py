"""The gateway's side of the contract: its own relying party, token reader and logout receiver at one provider."""

from __future__ import annotations

import hashlib
import os
import queue
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from gateway.adapters.http import HttpxClient
from gateway.config import Issuer
from gateway.core.ports.documents import Document
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Identity
from gateway.identity.bearer.access_tokens import TokenReader, TrustedIssuer
from gateway.identity.oidc.backchannel_logout import LogoutReceiver
from gateway.identity.oidc.claims import Claims
from gateway.identity.oidc.client_auth import BasicCredential
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.oidc.introspection import Active, Introspector
from gateway.identity.oidc.relying_party import RelyingParty, Tokens
from tests.support.contract_providers import REDIRECT, Provider

_SERVICE = Route("staff", "staff.example.com")


class Documents:
    """Meets `Documents` as far as a logout receiver needs it, for one process."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Document] = {}

    async def get(self, collection: str, key: str, now: float) -> Document | None:
        return self.kept.get((collection, key))

    async def put(
        self, collection: str, key: str, value: bytes, expires_at: float, *, version: int, group: str = ""
    ) -> bool:
        there = self.kept.get((collection, key))
        if version != (there.version if there else 0):
            return False
        await self.overwrite(collection, key, value, expires_at)
        return True

    async def overwrite(self, collection: str, key: str, value: bytes, expires_at: float, *, group: str = "") -> None:
        there = self.kept.get((collection, key))
        self.kept[collection, key] = Document(key, value, (there.version if there else 0) + 1, expires_at)


class Ender:
    """Meets `SessionEnder`: what was ended, as (sid, subject)."""

    def __init__(self) -> None:
        self.ended: list[tuple[str | None, str | None]] = []

    async def end_login_sessions(
        self, issuer: str, *, sid: str | None = None, subject: str | None = None, why: str, before: float | None = None
    ) -> int:
        self.ended.append((sid, subject))
        return 1


@dataclass
class Back:
    """A browser that came back: what the address said, and what only the gateway knows of the sign-in."""

    query: dict[str, str]
    nonce: str
    verifier: str

    @property
    def code(self) -> str:
        return self.query["code"]


class Gateway:
    """One gateway at one provider."""

    def __init__(self, provider: Provider, config: Issuer, http: HttpxClient, secret: str, patience_s: float) -> None:
        self.provider, self.config, self.http = provider, config, http
        self.directory = IssuerDirectory(config, http, time.time, timeout_s=patience_s)
        credential = BasicCredential(provider.client, secret.encode())
        self.party = RelyingParty(config, self.directory, http, credential, REDIRECT, time.time, timeout_s=patience_s)
        api = BasicCredential(provider.api_client, provider.api_secret.encode())
        self.introspector = Introspector(config, self.directory, http, api, time.time, timeout_s=patience_s)
        self.reader = TokenReader([TrustedIssuer(config, self.directory, self.introspector)], time.time)
        self.ender = Ender()
        self.receiver = LogoutReceiver(
            config,
            provider.client,
            self.directory,
            self.ender,
            Documents(),  # type: ignore[arg-type]  # the part of it that a receiver uses
            time.time,
        )

    async def ask(self, *, max_age_s: float | None = None, prompt: str | None = None) -> tuple[str, str, str, str]:
        """An authorization request: its address, state, nonce and verifier."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        url = await self.party.authorization_url(
            state=state, nonce=nonce, verifier=verifier, max_age_s=max_age_s, prompt=prompt
        )
        assert isinstance(url, str), url
        return url, state, nonce, verifier

    async def go(self, *, api: bool = False, **wanted: Any) -> Back:
        """To the provider, sign in, and back. `api`: for an access token that the API accepts."""
        url, state, nonce, verifier = await self.ask(**wanted)
        back = self.provider.sign_in(self.provider.for_api(url) if api else url)
        assert back.startswith(f"{REDIRECT}?")
        query = dict(parse_qsl(urlsplit(back).query))
        assert query["state"] == state
        return Back(query, nonce, verifier)

    async def redeem(self, back: Back, **changes: Any) -> tuple[Tokens, Claims] | Refusal:
        wanted: dict[str, Any] = {"nonce": back.nonce, "verifier": back.verifier, "max_age_s": None} | changes
        return await self.party.redeem(back.code, **wanted)

    async def sign_in(self, *, api: bool = False, **wanted: Any) -> tuple[Tokens, Claims]:
        outcome = await self.redeem(await self.go(api=api, **wanted), max_age_s=wanted.get("max_age_s"))
        assert not isinstance(outcome, Refusal), outcome
        return outcome

    async def read(self, token: str, *, asks: bool | None = None) -> Identity | None | Refusal:
        """What the token says of a request that carries it. `asks`: the service wants introspection for JWTs too."""
        asked = self.provider.introspects if asks is None else asks
        return await self.reader.read(_facts(token), replace(_SERVICE, introspect_cache_s=10.0 if asked else None))

    async def introspect(self, token: str) -> Active | Refusal:
        """The issuer's word of this moment."""
        return await self.introspector.ask(token, hashlib.sha256(token.encode()).digest(), 0)


class Logouts(ThreadingHTTPServer):
    """A back-channel logout endpoint: what was sent to it."""

    daemon_threads = False

    def __init__(self) -> None:
        self.tokens: queue.Queue[str] = queue.Queue()
        super().__init__(("0.0.0.0" if os.environ.get("ZITADEL_REACHES_US") else "127.0.0.1", 0), _Hears)  # noqa: S104

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}/logout"


class _Hears(BaseHTTPRequestHandler):
    server: Logouts

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.server.tokens.put(parse_qs(body)["logout_token"][0])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@asynccontextmanager
async def gateway_at(
    provider: Provider, *, secret: str = "", patience_s: float = 5, **changes: Any
) -> AsyncIterator[Gateway]:
    """A gateway that waits `patience_s` for an answer; `changes` are those of the issuer's configuration."""
    http = HttpxClient(timeout_s=patience_s)
    made = Gateway(provider, provider.config(**changes), http, secret or provider.secret, patience_s)
    try:
        yield made
    finally:
        await made.reader.close()
        await http.close()


def _facts(token: str) -> RequestFacts:
    return RequestFacts(
        method="GET",
        host=_SERVICE.host,
        path="/",
        segments=(),
        query="",
        query_fields=(),
        headers=(("authorization", f"Bearer {token}"),),
        protocol="h2",
        content_length=None,
        peer=Peer("192.0.2.1", 4711),
        client_ip="192.0.2.1",
    )
