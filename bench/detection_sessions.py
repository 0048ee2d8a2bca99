"""Stolen cookies and sprayed passwords, through the real assessor; and stolen cookies of sessions that are bound.

A replay is one request with the owner's session. By a script: the owner's User-Agent, another TLS stack, no client
hints, from a hosting network. By the same browser build: all of the owner's looks, from a hosting network in the
owner's country, or from the owner's own ISP. Bound sessions are tried with the owner's very looks from the owner's ISP.
"""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from bench.detection_memory import Memory
from bench.detection_places import address, dice_of, line, located
from bench.detection_runs import ISSUER, Gate, facts_of
from bench.detection_world import World
from bench.processes import BenchFailed
from gateway.core import paths as own
from gateway.core.cookies import BOUND, SESSION
from gateway.core.reasons import Refusal
from gateway.core.routes import Route
from gateway.core.signals import Observation
from gateway.core.subject import Device, Identity, Session, subject_key
from gateway.identity.oidc.relying_party import Tokens
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.cookies import BrowserBinder, CookieReader
from gateway.identity.sessions.dbsc import LIFE_S, RESPONSE, Dbsc, Instructions
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions
from gateway.identity.sessions.token_refresh import Refresher

_SCRIPT_JA4 = "t13d3112h1_e8f1e7e78f70_6bebaf5329ac"
_HOST = "wiki.example.com"
_ROUTE = Route("wiki", _HOST)
_OWN, _OTHER = Device("owner", "O" * 43), Device("thief", "T" * 43)
_LATER_S = 20.0


async def replays(seed: int, people: int) -> dict[str, float]:
    """Shares, in percent, of stolen cookies that are refused or asked for a factor (the level high), by thief.

    `..._first`: at the thief's first request. `..._in_turn`: at the thief's second, when the owner went on in between.
    """
    dice = dice_of(seed)
    gate = Gate(Memory())
    owners = [one.seen for one in World(seed, people, 40).sign_ins() if one.who == "honest"][-4 * people :]
    outcomes: dict[str, list[bool]] = {}
    for number, seen in enumerate(owners):
        gate.now = max(gate.now + 120.0, seen.now)
        country, kind = seen.network.country or "DE", ("script", "same_build_vpn", "same_build_same_isp")[number % 3]
        session = Session(f"s{number}", gate.now)
        await gate.assess(seen, session, "pwd", "otp")
        where = line(dice, country, "hosting") if kind != "same_build_same_isp" else None
        ip = seen.ip.rpartition(".")[0] + f".{dice.randrange(2, 255)}" if where is None else address(dice, where)
        network = seen.network if where is None else located(ip.rpartition(".")[0], where, seed)
        thief = replace(seen, ip=ip, network=network)
        if kind == "script":
            thief = replace(thief, ja4=_SCRIPT_JA4, hints="")
        gate.now += _LATER_S
        first = (await gate.assess(thief, session, "pwd", "otp")).level == "high"
        gate.now += _LATER_S
        await gate.assess(seen, session, "pwd", "otp")
        gate.now += _LATER_S
        second = (await gate.assess(thief, session, "pwd", "otp")).level == "high"
        outcomes.setdefault(f"{kind}_first", []).append(first)
        outcomes.setdefault(f"{kind}_in_turn", []).append(first or second)
    return {name: 100 * sum(caught) / len(caught) for name, caught in outcomes.items()}


async def sprayed(seed: int, rounds: int) -> dict[str, float]:
    """Shares, in percent, of sprayers who are asked for a factor where one of so many passwords was right."""
    dice = dice_of(seed)
    people = [one.seen for one in World(seed, 60, 30).sign_ins() if one.who == "honest"]
    shares = {}
    for tried in (5, 20, 100):
        caught = 0
        for number in range(rounds):
            gate = Gate(Memory())
            victim = dice.choice(people)
            gate.now = victim.now
            await gate.assess(victim, Session("owner", gate.now), "pwd", "otp")
            where = line(dice, victim.network.country or "DE", "fixed")
            ip = address(dice, where)
            thief = replace(victim, ip=ip, network=located(ip.rpartition(".")[0], where, seed))
            for account in range(tried):
                gate.now += 2.0
                account_key = subject_key(ISSUER, f"account{account}")
                gate.assessor.record_failure("login_failed", ip, thief.network, account=account_key)
            await gate.assessor.flush()
            report = await gate.assess(thief, Session(f"thief{number}", gate.now), "pwd")
            caught += report.level == "high"
        shares[f"spraying_{tried}_accounts"] = 100 * caught / rounds
    return shares


# ---- bound sessions ----


class _Holders:
    """Sign-ins that are bound, each by a device certificate or by a key in the browser, and those who copy them."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.memory = Memory()
        self.logins = LoginSessions(self.memory, self.memory, self.clock, _random, idle_s=86_400)  # type: ignore[arg-type]
        self.cookies = BrowserSessions(self.memory, self.clock, _random)
        self.keys = Dbsc(
            self.memory,
            self.cookies,
            self.logins,
            origin=lambda host: f"https://{host}",
            clock=self.clock,
            random=_random,
        )
        refresher = Refresher(self.logins, self.memory, {}, self.clock, _random)
        self.reader = CookieReader(self.cookies, self.logins, refresher, {ISSUER}, self.clock)
        self.binder = BrowserBinder(self.logins, self.memory, self.clock, (self.keys,))  # type: ignore[arg-type]

    def clock(self) -> float:
        return self.now

    async def sign_in(self, seen: Observation, device: Device | None) -> str:
        identity = Identity(ISSUER, seen.subject, "session", "", self.now + 86_400, auth_time=self.now)
        device_id = "" if device is None else device.id
        login = await self.logins.create(
            identity, _random(), Tokens("t", None, None, None), device_id=device_id, agent=seen.agent
        )
        if not isinstance(login, LoginSession):
            raise BenchFailed("a session could not be made")
        return await self.cookies.open(login, _HOST, device)

    async def register(self, seen: Observation, value: str) -> str:
        """Register a key for a session; the bound cookie."""
        offered = await self.keys.offer([f"{SESSION}={value}"])
        challenge = offered[0][1].partition('challenge="')[2].rstrip('"')
        facts = facts_of(seen, (RESPONSE, _proof(challenge)), host=_HOST)
        outcome = await self.keys.register(replace(facts, path=own.DBSC_REGISTER))
        if not isinstance(outcome, Instructions):
            raise BenchFailed("a key could not be registered")
        return outcome.set_cookie.partition(";")[0].partition("=")[2]

    async def is_served(self, seen: Observation, device: Device | None, *cookies: tuple[str, str]) -> bool:
        """Stages 5 and 6, as for any request: whether there is a session after them."""
        facts = facts_of(seen, ("cookie", "; ".join(f"{name}={value}" for name, value in cookies)), host=_HOST)
        identity = await self.reader.read(facts, _ROUTE)
        if identity is None or isinstance(identity, Refusal):
            return False
        return isinstance(await self.binder.bind(identity, device, facts, _ROUTE), Session)


async def bound(seed: int, tries: int, advance: Callable[[], None] = lambda: None) -> dict[str, int]:
    """How many of so many replays were served, half of device-bound sessions and half of key-bound ones.

    Each steals the cookies of another session. Those of a key-bound one are the session cookie alone, or with the bound
    cookie once that has run out: until then, for at most quarter of an hour, a copy of both is as good as the browser.
    Raises BenchFailed when an owner is not served.
    """
    holders = _Holders()
    dice = dice_of(seed)
    people = [one.seen for one in World(seed, 100, 20).sign_ins() if one.who == "honest"]
    served = 0
    for number in range(tries):
        owner = dice.choice(people)
        thief = replace(owner, ip=owner.ip.rpartition(".")[0] + f".{dice.randrange(2, 255)}")
        if number % 2:
            value = await holders.sign_in(owner, _OWN)
            await _check(holders, owner, _OWN, (SESSION, value))
            served += await holders.is_served(thief, _OTHER if number % 4 == 1 else None, (SESSION, value))
        else:
            value = await holders.sign_in(owner, None)
            key = await holders.register(owner, value)
            await _check(holders, owner, None, (SESSION, value), (BOUND, key))
            holders.now += 15.0 if number % 4 else LIFE_S + 30.0
            stolen = [(SESSION, value)] if number % 4 else [(SESSION, value), (BOUND, key)]
            served += await holders.is_served(thief, None, *stolen)
        holders.memory.kept.clear()
        advance()
    return {"tried": tries, "served": served}


async def _check(holders: _Holders, seen: Observation, device: Device | None, *cookies: tuple[str, str]) -> None:
    if not await holders.is_served(seen, device, *cookies):
        raise BenchFailed("the owner of a bound session is not served")


_KEY = ec.generate_private_key(ec.SECP256R1())
_SIGNER = jwt.PyJWS().get_algorithm_by_name("ES256")


def _proof(challenge: str) -> str:
    """A browser's answer to a challenge, with its key."""
    found = _SIGNER.to_jwk(_KEY.public_key(), as_dict=True)
    head = {"alg": "ES256", "typ": "dbsc+jwt", "jwk": {name: found[name] for name in ("kty", "crv", "x", "y")}}
    message = ".".join(_b64(json.dumps(part).encode()) for part in (head, {"jti": challenge}))
    return f"{message}.{_b64(_SIGNER.sign(message.encode(), _KEY))}"


def _b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _random() -> str:
    return secrets.token_urlsafe(32)
