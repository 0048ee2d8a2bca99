from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_plus

import jwt
import pytest

from gateway.adapters.http import HttpxClient
from gateway.config import Introspection, Issuer
from gateway.core.ports.http import HttpAnswer
from gateway.core.reasons import Refusal
from gateway.demo.idp.provider import DevProvider
from gateway.demo.idp.token_issuer import Key
from gateway.identity.oidc.client_auth import BasicCredential, ClientCredential, KeyCredential
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.oidc.introspection import Active, Introspector
from tests.support.issuer_world import NOW, STATIC, Clock, StaticIssuer, static_config

TOKEN = "a token that only its issuer can read"
GOOD = {"active": True, "sub": "person", "aud": ["project"], "token_type": "Bearer", "exp": int(NOW) + 600}


def digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


def key_file(key: Key, /, **changes: Any) -> bytes:
    document = {"type": "application", "keyId": key.kid, "key": key.pem(), "clientId": "gateway"} | changes
    return json.dumps(document).encode()


@pytest.fixture
async def introspector(static: StaticIssuer, directory: IssuerDirectory, clock: Clock) -> AsyncIterator[Introspector]:
    static.say(GOOD)
    credential = BasicCredential("gateway", b"secret\n")
    made = Introspector(static_config(), directory, static, credential, clock, timeout_s=0.2, size=4)
    yield made
    await made.close()


async def ask(introspector: Introspector, token: str = TOKEN, max_age_s: float = 10) -> str:
    found = await introspector.ask(token, digest(token), max_age_s)
    return found.reason if isinstance(found, Refusal) else "ok"


async def test_two_hundred_parallel_callers_make_one_request(introspector: Introspector, static: StaticIssuer) -> None:
    assert set(await asyncio.gather(*(ask(introspector) for _ in range(200)))) == {"ok"}
    assert static.asked["introspect"] == 1


async def test_an_answer_is_used_again_only_for_its_time(
    introspector: Introspector, static: StaticIssuer, clock: Clock
) -> None:
    for seconds, asked in ((0, 1), (9.9, 1), (0.1, 2)):
        clock.pass_(seconds)
        assert await ask(introspector) == "ok"
        assert static.asked["introspect"] == asked
    clock.pass_(1)
    assert await ask(introspector, max_age_s=1) == "ok"
    assert static.asked["introspect"] == 3


async def test_a_no_is_remembered_too_but_shorter(
    introspector: Introspector, static: StaticIssuer, clock: Clock
) -> None:
    static.say({"active": False})
    for seconds, asked in ((0, 1), (1.9, 1), (0.1, 2)):
        clock.pass_(seconds)
        assert await ask(introspector) == "token_inactive"
        assert static.asked["introspect"] == asked


async def test_a_failure_is_not_remembered(introspector: Introspector, static: StaticIssuer) -> None:
    static.say({}, status=500)
    assert await ask(introspector) == "issuer_unavailable"
    static.say(GOOD)
    assert await ask(introspector) == "ok"


async def test_a_remembered_answer_still_expires(
    introspector: Introspector, static: StaticIssuer, clock: Clock
) -> None:
    static.say(GOOD | {"exp": int(NOW) + 3})
    assert await ask(introspector) == "ok"
    clock.pass_(8)
    assert await ask(introspector) == "token_expired"


async def test_the_memory_is_bounded_and_holds_no_token(introspector: Introspector) -> None:
    for number in range(9):
        assert await ask(introspector, f"token-{number}") == "ok"
    assert list(introspector._answers) == [digest(f"token-{number}") for number in range(5, 9)]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"active": False}, "token_inactive"),
        ({"active": "true"}, "issuer_unavailable"),
        ({"active": 1}, "issuer_unavailable"),
        ({}, "issuer_unavailable"),
        ([], "issuer_unavailable"),
        (GOOD | {"sub": None}, "issuer_unavailable"),
        (GOOD | {"sub": 7}, "issuer_unavailable"),
        (GOOD | {"exp": "soon"}, "issuer_unavailable"),
        (GOOD | {"iss": STATIC}, "ok"),
        (GOOD | {"iss": "https://elsewhere.example"}, "token_issuer_unknown"),
        (GOOD | {"aud": "elsewhere"}, "token_audience_wrong"),
        (GOOD | {"aud": [1]}, "issuer_unavailable"),
        (GOOD | {"exp": int(NOW) - 5}, "token_expired"),
        (GOOD | {"nbf": int(NOW) + 6}, "token_not_yet_valid"),
        (GOOD | {"token_type": "DPoP"}, "token_kind_wrong"),
        (GOOD | {"token_type": "DPoP", "cnf": {"x5t#S256": "A"}}, "token_kind_wrong"),
        (GOOD | {"token_type": "DPoP", "cnf": ["jkt"]}, "token_kind_wrong"),
        (GOOD | {"token_type": "DPoP", "cnf": {"jkt": "A"}}, "ok"),
        (GOOD | {"token_type": "mac", "cnf": {"jkt": "A"}}, "token_kind_wrong"),
        (GOOD | {"token_type": "bearer"}, "ok"),
    ],
)
async def test_only_a_clear_yes_is_a_yes(
    introspector: Introspector, static: StaticIssuer, document: Any, expected: str
) -> None:
    static.say(document)
    assert await ask(introspector) == expected


@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 403, 404, 429, 500, 503])
async def test_any_other_status_is_no_answer(introspector: Introspector, static: StaticIssuer, status: int) -> None:
    static.say(GOOD, status=status)
    assert await ask(introspector) == "issuer_unavailable"


async def test_a_refused_credential_is_told_apart(introspector: Introspector, static: StaticIssuer) -> None:
    static.say({"error": "invalid_client"}, status=401)
    found = await introspector.ask("token", digest("token"), 10)
    assert isinstance(found, Refusal)
    assert "own credential" in found.detail


async def test_garbage_silence_and_a_missing_endpoint_are_no_answer(
    introspector: Introspector, static: StaticIssuer, directory: IssuerDirectory, clock: Clock
) -> None:
    assert await ask(introspector) == "ok"
    static.answer = HttpAnswer(200, {}, b'{"active":true,"active":false,"sub":"x"}')
    assert await ask(introspector, "1") == "issuer_unavailable"
    static.hangs = True
    assert await ask(introspector, "2") == "issuer_unavailable"
    static.hangs, static.is_down = False, True
    assert await ask(introspector, "3") == "issuer_unavailable"
    static.is_down, static.discovery = False, {"introspection_endpoint": None}
    static.say(GOOD)
    clock.pass_(400)
    assert await ask(introspector, "4") == "issuer_unavailable"


async def test_a_caller_that_goes_away_does_not_take_the_answer_from_the_others(
    introspector: Introspector, static: StaticIssuer
) -> None:
    first = asyncio.create_task(ask(introspector))
    await asyncio.sleep(0)
    second = asyncio.create_task(ask(introspector))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "ok"
    assert static.asked["introspect"] == 1


async def test_too_many_questions_at_once_are_refused(introspector: Introspector, static: StaticIssuer) -> None:
    answers = await asyncio.gather(*(ask(introspector, str(number)) for number in range(1_100)))
    assert answers.count("issuer_unavailable") == 1_100 - 1_024
    assert static.asked["introspect"] == 1_024


async def test_an_issuer_without_introspection_cannot_be_asked(
    static: StaticIssuer, directory: IssuerDirectory, clock: Clock
) -> None:
    with pytest.raises(ValueError, match="no introspection"):
        Introspector(static_config(introspection=None), directory, static, BasicCredential("g", b"s"), clock)


# ---- credentials ----


def test_both_halves_of_basic_are_form_urlencoded() -> None:
    headers, form = BasicCredential("client:id@project", b" s3cret+/%:\xc3\xa9 \n").authenticate(STATIC, NOW)
    name, _, secret = base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode().partition(":")
    assert (unquote_plus(name), unquote_plus(secret), form) == ("client:id@project", "s3cret+/%:\u00e9", {})


def test_an_assertion_is_fresh_each_time_and_short(key: Key) -> None:
    credential = KeyCredential("gateway", key_file(key))
    seen = set()
    for _ in range(3):
        headers, form = credential.authenticate(STATIC, NOW)
        assert not headers
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assertion = form["client_assertion"]
        options: Any = {"verify_exp": False, "verify_iat": False}
        claims = jwt.decode(assertion, key.private.public_key(), ["RS256"], audience=STATIC, options=options)
        assert jwt.get_unverified_header(assertion)["kid"] == key.kid
        assert (claims["iss"], claims["sub"], claims["iat"]) == ("gateway", "gateway", NOW - 1)
        assert claims["exp"] - claims["iat"] <= 60
        seen.add(claims["jti"])
    assert len(seen) == 3


def test_a_credential_shows_nothing_of_its_secret(key: Key) -> None:
    for credential in (BasicCredential("gateway", b"hunter2"), KeyCredential("gateway", key_file(key))):
        assert "hunter2" not in repr(credential)
        assert "PRIVATE" not in repr(credential)


@pytest.mark.parametrize("secret", [b"", b"\n", b"\xff\xfe"])
def test_a_secret_that_is_no_text_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match="client secret"):
        BasicCredential("gateway", secret)


@pytest.mark.parametrize(
    "changes",
    [{"key": "hunter2"}, {"key": None}, {"keyId": ""}, {"type": "serviceaccount"}, {"clientId": "somebody else"}],
)
def test_a_key_file_that_will_not_do_is_refused_without_being_quoted(key: Key, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="key") as refused:
        KeyCredential("gateway", key_file(key, **changes))
    assert "hunter2" not in str(refused.value)


def test_a_weak_or_public_or_other_key_is_no_credential(key: Key) -> None:
    for pem in (Key(1024).pem(), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(ValueError, match="key"):
            KeyCredential("gateway", key_file(key, key=pem))
    for file in (b"", b"[]", b"{}", b"\xff", key.pem().encode()):
        with pytest.raises(ValueError, match="JSON object"):
            KeyCredential("gateway", file)


# ---- against the development provider, over HTTP ----


def provider_config(provider: DevProvider) -> Issuer:
    introspection = Introspection(client_id=provider.api_client, method="basic")
    return Issuer(issuer=provider.issuer, profile="zitadel", audiences=(provider.project,), introspection=introspection)


@pytest.mark.parametrize("method", ["basic", "private_key_jwt"])
async def test_the_provider_knows_both_credentials_and_no_others(
    provider: DevProvider, http: HttpxClient, clock: Clock, key: Key, method: str
) -> None:
    config = provider_config(provider)
    token = provider.opaque_token("alice")
    good: ClientCredential
    bad: ClientCredential
    if method == "basic":
        good = BasicCredential(provider.api_client, provider.api_secret.encode())
        bad = BasicCredential(provider.api_client, b"guess")
    else:
        good = KeyCredential(provider.api_client, provider.api_key_file)
        bad = KeyCredential(provider.api_client, key_file(key, clientId=provider.api_client))
    directory = IssuerDirectory(config, http, clock)
    for credential, expected in ((good, Active), (bad, Refusal)):
        introspector = Introspector(config, directory, http, credential, clock)
        assert isinstance(await introspector.ask(token, digest(token), 10), expected)
        await introspector.close()
    await directory.close()
