"""The service with its real plugins, a real store and a security key in software."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyotp

from gateway.core.factors import FactorOwner
from gateway.core.reasons import REASONS, Refusal
from gateway.identity.factors.store import (
    EnrolledFactor,
    Factors,
    PendingChallenge,
    Proof,
)
from tests.support.login_world import Clock
from tests.support.webauthn_authenticator import Authenticator  # the tests of the plugins use it too

ADA = FactorOwner("https://id.example.com", "ada", "ada@example.com")


BOB = replace(ADA, subject="bob")


class Person:
    """Somebody with an app, a key and paper, at a browser."""

    def __init__(self, factors: Factors, clock: Clock, owner: FactorOwner) -> None:
        self.factors, self.clock, self.owner = factors, clock, owner
        self.key = Authenticator()
        self.secret = ""
        self.codes: list[str] = []

    async def begin(self, kind: str, proof: Proof | None = None) -> PendingChallenge:
        begun = await self.factors.begin_enrolment(self.owner, kind, proof)
        assert isinstance(begun, PendingChallenge), begun
        return begun

    def code(self) -> dict[str, Any]:
        return {"code": pyotp.TOTP(self.secret).at(int(self.clock()))}

    async def enrol(self, kind: str, proof: Proof | None = None, label: str = "") -> EnrolledFactor:
        begun = await self.begin(kind, proof)
        self.secret = begun.show.get("secret", self.secret)
        self.codes = list(begun.show.get("codes", self.codes))
        answer = {"recovery": lambda: {"saved": True}, "webauthn": lambda: self.key.create(begun.show)}.get(
            kind, self.code
        )()
        found = await self.factors.finish_enrolment(self.owner, begun.id, answer, label)
        assert isinstance(found, EnrolledFactor), found
        self.clock.now += 30
        return found

    async def challenge(self, kind: str) -> PendingChallenge:
        begun = await self.factors.begin_challenge(self.owner, kind)
        assert isinstance(begun, PendingChallenge), begun
        return begun

    async def say(self, kind: str, answer: Any) -> Proof | Refusal:
        begun = await self.challenge(kind)
        return await self.factors.finish_challenge(self.owner, begun.id, answer)

    async def prove(self, kind: str) -> Proof:
        begun = await self.challenge(kind)
        answer = {"recovery": lambda: {"code": self.codes[0]}, "webauthn": lambda: self.key.get(begun.show)}.get(
            kind, self.code
        )()
        found = await self.factors.finish_challenge(self.owner, begun.id, answer)
        assert isinstance(found, Proof), found
        return found


def reason(found: object) -> str:
    assert isinstance(found, Refusal), found
    assert found.reason in REASONS
    return found.reason
