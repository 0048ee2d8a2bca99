"""A session's key in the browser: how it is asked for, proven, missed; every trap of the wire is a test here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gateway.core import paths as own
from gateway.core.cookies import BOUND
from gateway.core.reasons import REASONS, Refusal
from gateway.core.subject import Session
from gateway.identity.sessions.cookies import BrowserBinder
from gateway.identity.sessions.dbsc import (
    REGISTRATION,
    RESPONSE,
    SESSION_ID,
    Challenged,
    Dbsc,
    Instructions,
)
from tests.support.login_world import WIKI, Browser, World, origin, random, twin
from tests.support.proof_world import Holder

OFFER = re.compile(r'\(ES256 RS256\);path="/\.gateway/dbsc/register";challenge="([A-Za-z0-9_-]{43})"\Z')


CHALLENGE = re.compile(r'"([A-Za-z0-9_-]{43})";id="([0-9a-f]{64})"\Z')


HOLDER = Holder()


class Bound:
    """The world of sign-ins, with keys; and what a browser that has some does by itself."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.keys = self.worker()
        world = self.world
        world.binder = BrowserBinder(world.logins, world.store, world.clock, (self.keys,))

    def worker(self) -> Dbsc:
        world = self.world
        return Dbsc(world.documents, world.cookies, world.logins, origin=origin, clock=world.clock, random=random)

    async def arrive(self, browser: Browser) -> str:
        """Sign in; the challenge of the offer that comes with the session cookie."""
        outcome = await self.world.sign_in(browser)
        return await self.offered(outcome.cookies)

    async def offered(self, cookies: tuple[str, ...]) -> str:
        ((name, value),) = await self.keys.offer(cookies)
        match = OFFER.match(value)
        assert name == REGISTRATION
        assert match is not None
        return match[1]

    def facts(self, path: str, host: str = WIKI, **headers: str) -> Any:
        """A request of the browser itself: neither cookie nor origin nor site."""
        return Browser().facts(f"https://{host}{path}", "POST", **headers)

    async def register(self, challenge: Any, holder: Holder = HOLDER, host: str = WIKI, **header: Any) -> Any:
        head = {"alg": holder.algorithm, "typ": "dbsc+jwt", "jwk": holder.jwk} | header
        proof = holder.sign(head, {"jti": challenge})
        return await self.keys.register(self.facts(own.DBSC_REGISTER, host, **{RESPONSE: proof}))

    async def refresh(
        self, name: str, challenge: str | None = None, holder: Holder = HOLDER, host: str = WIKI, **header: Any
    ) -> Any:
        sent = {SESSION_ID: name}
        if challenge is not None:
            head = {"alg": holder.algorithm, "typ": "dbsc+jwt"} | header
            sent[RESPONSE] = holder.sign(head, {"jti": challenge})
        return await self.keys.refresh(self.facts(own.DBSC_REFRESH, host, **sent))

    async def challenge(self, name: str) -> str:
        found = await self.refresh(name)
        assert isinstance(found, Challenged), found
        match = CHALLENGE.match(found.header)
        assert match is not None
        assert match[2] == name
        return match[1]

    async def bind(self, browser: Browser, holder: Holder = HOLDER) -> str:
        """Sign in with a browser that has keys; the name of its session."""
        found = await self.register(await self.arrive(browser), holder)
        return self.keep(browser, found)

    def keep(self, browser: Browser, found: Any) -> str:
        assert isinstance(found, Instructions), found
        browser.keep(WIKI, (found.set_cookie,))
        return str(found.document["session_identifier"])

    async def ask(self, browser: Browser) -> Any:
        found = await self.world.ask(browser)
        return found.bound_by if isinstance(found, Session) else found


def reason_of(outcome: Any) -> str:
    assert isinstance(outcome, Refusal), outcome
    assert outcome.reason in REASONS
    return outcome.reason


def without(browser: Browser) -> Browser:
    """Somebody with the session cookie alone."""
    thief = twin(browser)
    thief.jars[WIKI].pop(BOUND, None)
    return thief
