from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.config import Issuer
from gateway.core.ports.http import HttpAnswer, Unreachable
from gateway.core.reasons import Refusal
from gateway.demo.idp.token_issuer import Key
from gateway.identity.jose.jws import b64url_encode
from gateway.identity.oidc.backchannel_logout import RETRY, LogoutReceiver
from gateway.identity.oidc.discovery import COOLDOWN_S, IssuerDirectory
from tests.support.zitadel_world import NOW, Clock, Ender, Memory

ISSUER, CLIENT = "https://id.example.com", "243864426485212395"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
KEY, OTHER = Key(), Key()


class Published:
    """An issuer's documents in memory."""

    def __init__(self) -> None:
        self.down = False
        self.keys = [KEY]

    async def get(self, url: str, _: Any = None) -> HttpAnswer:
        if self.down:
            raise Unreachable("no answer in time")
        found = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/oauth/v2/keys"}
        body = {"keys": [key.jwk() for key in self.keys]} if url.endswith("/keys") else found
        return HttpAnswer(200, {}, json.dumps(body).encode())


class World:
    def __init__(self, profile: str = "zitadel") -> None:
        self.clock, self.ender, self.memory, self.published = Clock(), Ender(), Memory(), Published()
        config = Issuer.model_validate({"issuer": ISSUER, "profile": profile, "audiences": ["the-project"]})
        self.directory = IssuerDirectory(config, self.published, self.clock)  # type: ignore[arg-type]
        self.receiver = LogoutReceiver(config, CLIENT, self.directory, self.ender, self.memory, self.clock)

    def claims(self, **changes: Any) -> dict[str, Any]:
        claims = {"iss": ISSUER, "sub": "42", "aud": [CLIENT], "iat": NOW, "exp": NOW + 900, "jti": "j1", "sid": "s1"}
        claims |= {"events": {EVENT: {}}}
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, *, key: Key = KEY, alg: str = "RS256", header: dict[str, Any] | None = None, **changes: Any) -> str:
        head = {"typ": "JWT", "kid": KEY.kid} | (header or {})
        return jwt.encode(self.claims(**changes), key.private, alg, headers=head)

    async def refused(self, token: str) -> str:
        outcome = await self.receiver.receive(token)
        assert isinstance(outcome, Refusal)
        assert self.ender.ended == []
        return outcome.reason


@pytest.fixture
def world() -> World:
    return World()


async def test_a_sid_ends_that_session_alone(world: World) -> None:
    assert await world.receiver.receive(world.token()) == 1
    assert world.ender.ended == [("s1", None, "logged out at the identity provider")]


async def test_a_subject_without_a_sid_ends_everything_of_that_person(world: World) -> None:
    assert await world.receiver.receive(world.token(sid=None)) == 1
    assert world.ender.ended[0][:2] == (None, "42")


async def test_a_sid_needs_no_subject(world: World) -> None:
    assert await world.receiver.receive(world.token(sub=None)) == 1


async def test_the_audience_may_be_a_text(world: World) -> None:
    assert await world.receiver.receive(world.token(aud=CLIENT)) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example.com"}, "token_issuer_unknown"),
        ({"aud": ["another"]}, "token_audience_wrong"),
        ({"aud": ["the-project"]}, "token_audience_wrong"),
        ({"aud": None}, "token_malformed"),
        ({"exp": NOW - 6}, "token_expired"),
        ({"exp": None}, "token_malformed"),
        ({"exp": NOW + 90_000}, "token_malformed"),
        ({"iat": NOW + 60}, "token_not_yet_valid"),
        ({"iat": None}, "token_malformed"),
        ({"jti": None}, "token_malformed"),
        ({"jti": 7}, "token_malformed"),
        ({"sid": 7}, "token_malformed"),
        ({"sid": None, "sub": None}, "token_malformed"),
        ({"sid": "", "sub": ""}, "token_malformed"),
        ({"nonce": "n"}, "token_kind_wrong"),
        ({"nonce": ""}, "token_kind_wrong"),
        ({"events": None}, "token_kind_wrong"),
        ({"events": {"http://example.com/other": {}}}, "token_kind_wrong"),
        ({"events": [EVENT]}, "token_kind_wrong"),
        ({"events": {EVENT: True}}, "token_kind_wrong"),
    ],
)
async def test_a_claim_that_is_wrong_refuses_the_token(world: World, changes: dict[str, Any], reason: str) -> None:
    assert await world.refused(world.token(**changes)) == reason
    assert reason not in RETRY


async def test_a_null_nonce_is_a_nonce(world: World) -> None:
    token = jwt.encode(world.claims() | {"nonce": None}, KEY.private, "RS256", headers={"kid": KEY.kid})
    assert await world.refused(token) == "token_kind_wrong"


async def test_an_access_token_and_an_id_token_are_no_logout_tokens(world: World) -> None:
    assert await world.refused(world.token(events=None, client_id=CLIENT)) == "token_kind_wrong"
    assert await world.refused(world.token(events=None, nonce="n")) == "token_kind_wrong"


async def test_an_unsigned_token_is_refused(world: World) -> None:
    parts = [b64url_encode(json.dumps(part).encode()) for part in ({"alg": "none", "typ": "JWT"}, world.claims())]
    assert await world.refused(".".join([*parts, ""])) == "token_algorithm_refused"


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(world: World) -> None:
    token = jwt.encode(world.claims(), "x" * 64, "HS256", headers={"kid": KEY.kid})
    assert await world.refused(token) == "token_algorithm_refused"


async def test_a_wrong_signature_is_refused(world: World) -> None:
    assert await world.refused(world.token(key=OTHER)) == "token_signature_invalid"
    head, body, _ = world.token().split(".")
    other = world.token(jti="j2").split(".")[2]
    assert await world.refused(f"{head}.{body}.{other}") == "token_signature_invalid"


async def test_an_unknown_key_is_refused(world: World) -> None:
    assert await world.refused(world.token(header={"kid": "unknown"})) == "token_key_unknown"


async def test_a_new_key_is_waited_for_while_the_issuer_was_asked_lately(world: World) -> None:
    """Anybody can use up the one refetch with an invented kid; a logout that follows must come again, not be lost."""
    assert await world.receiver.receive(world.token()) == 1
    world.ender.ended.clear()
    assert await world.refused(world.token(header={"kid": "invented"})) == "token_key_unknown"
    world.published.keys.append(OTHER)
    genuine = world.token(key=OTHER, header={"kid": OTHER.kid}, jti="j2")
    assert await world.refused(genuine) in RETRY
    world.clock.now += COOLDOWN_S
    assert await world.receiver.receive(world.token(key=OTHER, header={"kid": OTHER.kid}, jti="j2")) == 1


@pytest.mark.parametrize("header", [{"jwk": {}}, {"jku": "https://x"}, {"x5c": []}, {"crit": ["b64"], "b64": True}])
async def test_a_header_that_brings_its_own_key_is_refused(world: World, header: dict[str, Any]) -> None:
    assert await world.refused(world.token(header=header)) == "token_algorithm_refused"


@pytest.mark.parametrize(
    "token", ["", "a", "a.b", "a.b.c.d", "a.b.c", "é.b.c", "e30.e30.", "x" * 20_000, "e30=.e30=.AA"]
)
async def test_garbage_is_refused(world: World, token: str) -> None:
    assert await world.refused(token) in {"token_malformed", "token_algorithm_refused"}


async def test_the_strict_profile_asks_for_the_right_type() -> None:
    world = World("strict")
    assert await world.refused(world.token()) == "token_kind_wrong"
    assert await world.receiver.receive(world.token(header={"typ": "logout+jwt"})) == 1


async def test_the_same_token_is_taken_once(world: World) -> None:
    token = world.token()
    assert await world.receiver.receive(token) == 1
    outcome = await world.receiver.receive(token)
    assert isinstance(outcome, Refusal)
    assert outcome.reason == "token_malformed"
    assert len(world.ender.ended) == 1


async def test_a_jti_is_used_up_for_its_issuer_whatever_else_the_token_says(world: World) -> None:
    assert await world.receiver.receive(world.token()) == 1
    assert isinstance(await world.receiver.receive(world.token(sid="s2")), Refusal)
    assert await world.receiver.receive(world.token(jti="j2", sid="s2")) == 1


async def test_a_store_that_is_down_asks_for_another_try(world: World) -> None:
    world.memory.down = True
    assert await world.refused(world.token()) == "store_down"
    world.memory.down = False
    assert await world.receiver.receive(world.token()) == 1


async def test_a_token_that_could_not_be_acted_upon_may_come_again(world: World) -> None:
    world.ender.down = 1
    assert await world.refused(world.token()) == "store_down"
    assert await world.receiver.receive(world.token()) == 1
    assert isinstance(await world.receiver.receive(world.token()), Refusal)


async def test_an_issuer_whose_keys_cannot_be_had_asks_for_another_try(world: World) -> None:
    world.published.down = True
    assert await world.refused(world.token()) == "issuer_unavailable"
    assert {"issuer_unavailable", "store_down"} == RETRY


def test_the_keys_of_these_tests_are_strong() -> None:
    assert isinstance(KEY.private, rsa.RSAPrivateKey)
