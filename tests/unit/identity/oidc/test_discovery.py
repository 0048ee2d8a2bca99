from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.reasons import Refusal
from gateway.demo.idp.token_issuer import Key
from gateway.identity.jose.jws import published_keys
from gateway.identity.oidc.discovery import IssuerDirectory, Published
from tests.support.issuer_world import STATIC, Clock, StaticIssuer, static_config

ALGORITHMS = ("RS256", "RS384", "ES256", "EdDSA")


async def reason(directory: IssuerDirectory, kid: str | None, algorithm: str = "RS256") -> str:
    found = await directory.keys_for(kid, algorithm)
    return found.reason if isinstance(found, Refusal) else "ok"


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_keys_are_fetched_once_while_they_are_fresh(
    directory: IssuerDirectory, static: StaticIssuer, key: Key, clock: Clock
) -> None:
    for _ in range(5):
        assert await reason(directory, key.kid) == "ok"
        clock.pass_(59)
    assert static.asked == {"discovery": 1, "keys": 1}


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        ("max-age=120", 120),
        ("private, max-age=120", 120),
        ("", 300),
        ("max-age=nonsense", 300),
        ("max-age=0", 30),
        ("no-store", 30),
        ("max-age=600, no-cache", 30),
        ("max-age=999999", 3600),
        ("s-maxage=900", 300),
    ],
)
async def test_freshness_follows_cache_control_within_bounds(
    directory: IssuerDirectory, static: StaticIssuer, clock: Clock, control: str, seconds: float
) -> None:
    static.cache_control = control
    published = await directory.published()
    assert isinstance(published, Published)
    assert published.fresh_until == clock() + seconds


async def test_a_stale_set_is_served_while_its_successor_is_fetched(
    directory: IssuerDirectory, static: StaticIssuer, key: Key, clock: Clock
) -> None:
    await directory.published()
    clock.pass_(310)
    static.hangs = True
    assert await asyncio.wait_for(reason(directory, key.kid), 0.1) == "ok"
    static.hangs = False
    await settle()
    assert static.asked["discovery"] == 2


async def test_a_set_that_is_long_stale_is_replaced_before_it_is_used(
    directory: IssuerDirectory, static: StaticIssuer, key: Key, other_key: Key, clock: Clock
) -> None:
    await directory.published()
    clock.pass_(370)
    static.keys = [other_key.jwk()]
    assert await reason(directory, key.kid) == "token_key_unknown"


@pytest.mark.parametrize("trouble", ["empty", "500", "garbage", "down", "slow", "another issuer"])
async def test_the_last_good_set_is_kept_for_an_hour_and_no_longer(
    directory: IssuerDirectory, static: StaticIssuer, key: Key, clock: Clock, trouble: str
) -> None:
    await directory.published()
    break_(static, trouble)
    for _ in range(13):
        clock.pass_(299)
        assert await reason(directory, key.kid) == "ok"
    clock.pass_(299)
    assert await reason(directory, key.kid) == "issuer_unavailable"


def break_(static: StaticIssuer, trouble: str) -> None:
    match trouble:
        case "empty":
            static.keys = []
        case "500":
            static.keys_status = 500
        case "garbage":
            static.keys_body = b'{"keys":[{"kty"'
        case "down":
            static.is_down = True
        case "slow":
            static.hangs = True
        case _:
            static.discovery = {"issuer": f"{STATIC}/"}


@pytest.mark.parametrize("trouble", ["empty", "500", "garbage", "down", "slow", "another issuer"])
async def test_without_any_good_set_the_issuer_is_unavailable(
    directory: IssuerDirectory, static: StaticIssuer, key: Key, trouble: str
) -> None:
    break_(static, trouble)
    assert await reason(directory, key.kid) == "issuer_unavailable"


async def test_a_failing_issuer_is_left_alone_for_a_while(
    directory: IssuerDirectory, static: StaticIssuer, key: Key, clock: Clock
) -> None:
    static.is_down = True
    for _ in range(10):
        assert await reason(directory, key.kid) == "issuer_unavailable"
    assert static.asked["discovery"] == 1
    static.is_down = False
    clock.pass_(5)
    assert await reason(directory, key.kid) == "ok"


async def test_an_issuer_that_fails_does_not_slow_down_requests_that_its_last_keys_serve(
    directory: IssuerDirectory, static: StaticIssuer, key: Key, clock: Clock
) -> None:
    await directory.published()
    static.hangs = True
    clock.pass_(310)
    await reason(directory, key.kid)
    await asyncio.sleep(0.25)
    clock.pass_(900)
    assert await asyncio.wait_for(reason(directory, key.kid), 0.1) == "ok"


async def test_a_storm_of_unknown_kids_makes_one_refetch(
    directory: IssuerDirectory, static: StaticIssuer, clock: Clock
) -> None:
    await directory.published()
    answers = await asyncio.gather(*(reason(directory, f"kid-{number}") for number in range(200)))
    assert set(answers) == {"token_key_unknown"}
    assert static.asked["keys"] == 2
    clock.pass_(29)
    await reason(directory, "kid-x")
    assert static.asked["keys"] == 2
    clock.pass_(1)
    await reason(directory, "kid-x")
    assert static.asked["keys"] == 3


async def test_the_first_load_is_not_repeated_for_an_unknown_kid(
    directory: IssuerDirectory, static: StaticIssuer
) -> None:
    assert await reason(directory, "nobody") == "token_key_unknown"
    assert static.asked["keys"] == 1


async def test_a_new_key_is_found_by_its_unknown_kid(
    directory: IssuerDirectory, static: StaticIssuer, key: Key, other_key: Key
) -> None:
    await directory.published()
    static.keys = [other_key.jwk(), key.jwk()]
    assert await reason(directory, other_key.kid) == "ok"
    published = await directory.published()
    assert isinstance(published, Published)
    assert published.generation == 1


async def test_the_same_keys_again_are_the_same_generation(
    directory: IssuerDirectory, static: StaticIssuer, clock: Clock
) -> None:
    await directory.published()
    clock.pass_(400)
    published = await directory.published()
    assert isinstance(published, Published)
    assert (published.generation, static.asked["keys"]) == (0, 2)


async def test_a_caller_that_goes_away_does_not_take_the_fetch_from_the_others(
    directory: IssuerDirectory, static: StaticIssuer, key: Key
) -> None:
    first = asyncio.create_task(directory.published())
    await asyncio.sleep(0)
    second = asyncio.create_task(reason(directory, key.kid))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "ok"
    assert static.asked["keys"] == 1


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": STATIC + "/"},
        {"issuer": STATIC.upper()},
        {"issuer": None},
        {"jwks_uri": "http://id.example.com/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user:pass@id.example.com/keys"},
        {"jwks_uri": 7},
    ],
)
async def test_discovery_must_name_this_issuer_and_keep_its_tls(
    directory: IssuerDirectory, static: StaticIssuer, key: Key, discovery: dict[str, Any]
) -> None:
    static.discovery = discovery
    assert await reason(directory, key.kid) == "issuer_unavailable"


async def test_an_introspection_endpoint_without_tls_is_not_used(
    directory: IssuerDirectory, static: StaticIssuer
) -> None:
    static.discovery = {"introspection_endpoint": "http://id.example.com/introspect"}
    published = await directory.published()
    assert isinstance(published, Published)
    assert published.introspection_endpoint is None


# ---- which published keys are used at all ----


def usable(entry: dict[str, Any]) -> bool:
    return bool(published_keys({"keys": [entry]}, ALGORITHMS))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"use": None, "alg": None}, False),
        ({"use": "enc"}, False),
        ({"key_ops": ["verify"]}, True),
        ({"key_ops": ["sign"]}, False),
        ({"key_ops": []}, False),
        ({"key_ops": "verify"}, False),
        ({"alg": "RS384"}, True),
        ({"alg": "PS256"}, False),
        ({"alg": "HS256"}, False),
        ({"alg": "ES256"}, False),
        ({"alg": ["RS256"]}, False),
        ({"kty": "oct", "k": "c2VjcmV0"}, False),
        ({"kty": "EC"}, False),
        ({"crv": "P-256"}, False),
        ({"d": "AQAB"}, False),
        ({"n": "AQAB"}, False),
        ({"n": 3}, False),
        ({"e": "Ag"}, False),
        ({"e": "AQ"}, False),
        ({"kid": 7}, False),
        ({"kid": ""}, False),
        ({"x5u": "https://elsewhere.invalid", "x5c": ["AAAA"]}, True),
    ],
)
def test_a_key_is_used_only_for_what_it_says(key: Key, change: dict[str, Any], *, expected: bool) -> None:
    assert usable(key.jwk() | change) is expected


def test_an_rsa_key_below_2048_bits_is_not_used() -> None:
    assert not usable(Key(1024).jwk())


def test_a_key_without_alg_fits_every_allowed_algorithm_of_its_kind(key: Key) -> None:
    entry = {name: value for name, value in key.jwk().items() if name not in {"alg", "use"}}
    assert published_keys({"keys": [entry]}, ALGORITHMS)[0].algorithms == ("RS256", "RS384")


def test_good_keys_beside_bad_ones_are_used(key: Key) -> None:
    entries: list[Any] = [None, 7, {"kty": "RSA"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}, key.jwk()]
    assert [found.kid for found in published_keys({"keys": entries}, ALGORITHMS)] == [key.kid]


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {}}, {"keys": [{}] * 101}])
def test_a_document_without_a_list_of_keys_has_none(document: dict[str, Any]) -> None:
    assert published_keys(document, ALGORITHMS) == ()


async def test_a_token_without_kid_needs_exactly_one_fitting_key(
    static: StaticIssuer, directory: IssuerDirectory, key: Key, other_key: Key, clock: Clock
) -> None:
    assert await reason(directory, None) == "ok"
    assert await reason(directory, None, "ES256") == "token_key_unknown"
    static.keys = [key.jwk(), other_key.jwk()]
    clock.pass_(400)
    assert await reason(directory, None) == "token_key_unknown"


async def test_a_key_is_not_used_with_another_algorithm(static: StaticIssuer, key: Key, clock: Clock) -> None:
    directory = IssuerDirectory(static_config(algorithms=("RS256", "RS384")), static, clock)
    assert await reason(directory, key.kid, "RS384") == "token_algorithm_refused"
