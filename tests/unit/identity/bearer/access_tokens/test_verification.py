from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.core.reasons import Refusal
from gateway.core.subject import Identity, Role
from gateway.demo.idp.token_issuer import Key
from tests.support.access_token_world import Make, b64, header, outcome, signed
from tests.support.issuer_world import NOW, STATIC, StaticIssuer, claims, facts, route


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), None),
        (("Basic dXNlcjpwYXNz",), None),
        (("Bearer a.b.c", "Bearer a.b.c"), "token_ambiguous"),
        (("Bearer a.b.c", "Basic dXNlcjpwYXNz"), "token_ambiguous"),
        (("DPoP a.b.c",), "token_malformed"),
        (("dpop opaque", "Bearer opaque"), "token_ambiguous"),
        (("dpop eyJh.b.c.d.e",), "token_kind_wrong"),
        (("Bearer",), "token_malformed"),
        (("Bearer ",), "token_malformed"),
        (("Bearer\ta.b.c",), "token_malformed"),
        (("Bearer a.b.c, Bearer a.b.c",), "token_malformed"),
        (("Bearer a b",), "token_malformed"),
        (("Bearer a.b.c\n",), "token_malformed"),
        (("Bearer \u00e4.b.c",), "token_malformed"),
        (("",), "token_malformed"),
        (("bearer a.b.c",), "token_malformed"),
        (("Bearer " + "a" * 16_385,), "token_malformed"),
        (("Bearer eyJh.b.c.d.e",), "token_kind_wrong"),
        (("Bearer opaque",), "token_malformed"),
    ],
)
async def test_the_header_holds_exactly_one_access_token(
    static_reading: Make, values: tuple[str, ...], expected: str | None
) -> None:
    found = await static_reading().reader.read(facts(*values), route(introspect_cache_s=None))
    assert (found.reason if isinstance(found, Refusal) else found) == expected


async def test_a_good_token_is_read(static_reading: Make, key: Key) -> None:
    found = await static_reading()(signed(key, header(key), claims()), introspect_cache_s=None)
    assert found == Identity(
        issuer=STATIC,
        subject="person",
        kind="jwt",
        session_hint="V2_1",
        expires_at=NOW + 600,
        client_id="client",
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"alg": "none"}, "token_algorithm_refused"),
        ({"alg": "None"}, "token_algorithm_refused"),
        ({"alg": "HS256"}, "token_algorithm_refused"),
        ({"alg": "rs256"}, "token_algorithm_refused"),
        ({"alg": "RS512"}, "token_algorithm_refused"),
        ({"alg": "ES256"}, "token_algorithm_refused"),
        ({"alg": ["RS256"]}, "token_malformed"),
        ({"alg": None}, "token_malformed"),
        ({"jku": "https://elsewhere.invalid/keys"}, "token_algorithm_refused"),
        ({"x5u": "https://elsewhere.invalid/cert"}, "token_algorithm_refused"),
        ({"x5c": ["AAAA"]}, "token_algorithm_refused"),
        ({"jwk": {"kty": "RSA"}}, "token_algorithm_refused"),
        ({"crit": ["exp"], "exp": 1}, "token_algorithm_refused"),
        ({"crit": []}, "token_algorithm_refused"),
        ({"b64": False, "crit": ["b64"]}, "token_algorithm_refused"),
        ({"kid": "unheard of"}, "token_key_unknown"),
        ({"kid": 7}, "token_malformed"),
        ({"kid": ""}, "token_malformed"),
        ({"kid": "../../dev/null"}, "token_key_unknown"),
        ({"typ": None}, "token_kind_wrong"),
        ({"typ": "logout+jwt"}, "token_kind_wrong"),
        ({"typ": "secevent+jwt"}, "token_kind_wrong"),
        ({"typ": "dpop+jwt"}, "token_kind_wrong"),
        ({"typ": ["JWT"]}, "token_kind_wrong"),
        ({"typ": "at+jwt"}, "ok"),
        ({"typ": "application/at+JWT"}, "ok"),
        ({"cty": "JWT"}, "ok"),
    ],
)
async def test_the_header_is_obeyed_only_where_it_may_speak(
    static_reading: Make, key: Key, change: dict[str, Any], expected: str
) -> None:
    token = signed(key, header(key, **change), claims())
    assert outcome(await static_reading()(token, introspect_cache_s=None)) == expected


async def test_the_public_key_is_no_hmac_secret(static_reading: Make, key: Key) -> None:
    public = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    message = f"{b64(header(key, alg='HS256'))}.{b64(claims())}"
    token = f"{message}.{b64(hmac.new(public, message.encode(), hashlib.sha256).digest())}"
    assert outcome(await static_reading()(token, introspect_cache_s=None)) == "token_algorithm_refused"


async def test_a_token_without_its_signature_is_refused(static_reading: Make, key: Key) -> None:
    token = signed(key, header(key), claims()).rpartition(".")[0] + "."
    assert outcome(await static_reading()(token, introspect_cache_s=None)) == "token_signature_invalid"


async def test_a_changed_payload_is_refused(static_reading: Make, key: Key) -> None:
    head, _, tail = signed(key, header(key), claims()).split(".")
    token = f"{head}.{b64(claims(sub='somebody else'))}.{tail}"
    assert outcome(await static_reading()(token, introspect_cache_s=None)) == "token_signature_invalid"


async def test_the_key_of_somebody_else_is_refused(static_reading: Make, key: Key, other_key: Key) -> None:
    token = signed(other_key, header(key), claims())
    assert outcome(await static_reading()(token, introspect_cache_s=None)) == "token_signature_invalid"


async def test_every_spelling_but_one_is_refused(static_reading: Make, key: Key) -> None:
    good = signed(key, header(key), claims())
    head, body, tail = good.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = tail[:-1] + last[last.index(tail[-1]) + 1]
    for token in (f"{head}.{body}.{tail}==", f"{head}.{body}.{twin}", f".{body}.{tail}", ".."):
        assert outcome(await static_reading()(token, introspect_cache_s=None)) == "token_malformed", token


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(claims())[:-1] + ',"sub":"admin"}',
        "[1]",
        "null",
        '"text"',
        "",
        "{",
        "\ufeff{}",
        '{"iss":NaN}',
        '{"iss":1e999}',
        '{"iss":"\\ud800"}',
        '{"a":' * 9 + "1" + "}" * 9,
        '{"a":' + "[" * 5_000 + "]" * 5_000 + "}",
        json.dumps({str(number): 0 for number in range(2_001)}),
    ],
    ids=range(13),
)
async def test_a_payload_that_has_two_readings_or_no_end_is_malformed(
    static_reading: Make, key: Key, payload: str
) -> None:
    token = signed(key, header(key), payload)
    assert outcome(await static_reading()(token, introspect_cache_s=None)) == "token_malformed"


async def test_a_header_with_duplicate_members_is_malformed(static_reading: Make, key: Key) -> None:
    twice = json.dumps(header(key))[:-1] + ',"alg":"none"}'
    assert outcome(await static_reading()(signed(key, twice, claims()), introspect_cache_s=None)) == "token_malformed"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"iss": STATIC + "/"}, "token_issuer_unknown"),
        ({"iss": STATIC.upper()}, "token_issuer_unknown"),
        ({"iss": [STATIC]}, "token_issuer_unknown"),
        ({"iss": None}, "token_issuer_unknown"),
        ({"aud": "project"}, "ok"),
        ({"aud": ["other"]}, "token_audience_wrong"),
        ({"aud": []}, "token_audience_wrong"),
        ({"aud": ["project", 7]}, "token_malformed"),
        ({"aud": {"project": 1}}, "token_malformed"),
        ({"aud": ["PROJECT"]}, "token_audience_wrong"),
        ({"aud": None}, "token_malformed"),
        ({"exp": int(NOW) - 4}, "ok"),
        ({"exp": int(NOW) - 5}, "token_expired"),
        ({"exp": NOW + 0.5}, "ok"),
        ({"exp": True}, "token_malformed"),
        ({"exp": str(int(NOW) + 600)}, "token_malformed"),
        ({"exp": -1}, "token_malformed"),
        ({"exp": 10**300}, "token_malformed"),
        ({"exp": None}, "token_malformed"),
        ({"nbf": int(NOW) + 5}, "ok"),
        ({"nbf": int(NOW) + 6}, "token_not_yet_valid"),
        ({"iat": int(NOW) + 6}, "token_not_yet_valid"),
        ({"iat": [1]}, "token_malformed"),
        ({"iat": None}, "token_malformed"),
        ({"nbf": None}, "ok"),
        ({"sub": None}, "token_malformed"),
        ({"sub": ""}, "token_malformed"),
        ({"sub": 7}, "token_malformed"),
        ({"sub": "a\nb"}, "token_malformed"),
        ({"client_id": None}, "token_kind_wrong"),
        ({"client_id": None, "azp": "client"}, "ok"),
        ({"client_id": 7}, "token_malformed"),
        ({"jti": None}, "token_kind_wrong"),
        ({"nonce": "n"}, "token_kind_wrong"),
        ({"at_hash": "h"}, "token_kind_wrong"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, "token_kind_wrong"),
        ({"events": {}}, "token_kind_wrong"),
        ({"auth_time": "today"}, "token_malformed"),
        ({"amr": "pwd"}, "token_malformed"),
        ({"amr": [1]}, "token_malformed"),
        ({"acr": 1}, "token_malformed"),
        ({"scope": ["openid"]}, "token_malformed"),
        ({"cnf": {"jkt": "thumb"}}, "ok"),
        ({"cnf": {"kid": "unheard of"}}, "token_malformed"),
        ({"cnf": "thumb"}, "token_malformed"),
        ({"urn:zitadel:iam:org:project:roles": "admin"}, "token_malformed"),
        ({"urn:zitadel:iam:org:project:roles": {"admin": ["org"]}}, "token_malformed"),
        ({"urn:zitadel:iam:user:resourceowner:id": 7}, "token_malformed"),
        ({"name": 7}, "ok"),
    ],
)
async def test_claims_are_checked_for_type_and_meaning(
    static_reading: Make, key: Key, change: dict[str, Any], expected: str
) -> None:
    token = signed(key, header(key), claims(**change))
    assert outcome(await static_reading()(token, introspect_cache_s=None)) == expected


async def test_only_configured_clients_are_accepted(static_reading: Make, key: Key) -> None:
    token = signed(key, header(key), claims())
    assert outcome(await static_reading(client_ids=("client",))(token, introspect_cache_s=None)) == "ok"
    assert outcome(await static_reading(client_ids=("x",))(token, introspect_cache_s=None)) == "token_client_wrong"


@pytest.mark.parametrize("missing", ["exp", "aud", "sub", "client_id", "iat", "jti"])
async def test_the_strict_profile_wants_every_claim_of_rfc_9068(static_reading: Make, key: Key, missing: str) -> None:
    read = static_reading(profile="strict")
    good = signed(key, header(key, typ="at+jwt"), claims(roles=["staff", "admin", "staff"]))
    found = await read(good, introspect_cache_s=None)
    assert (outcome(found), found.roles, found.session_hint) == ("ok", (Role("admin"), Role("staff")), "V2_1-at_2")
    token = signed(key, header(key, typ="at+jwt"), claims(**{missing: None}))
    assert outcome(await read(token, introspect_cache_s=None)) == "token_malformed"


async def test_the_strict_profile_wants_its_typ(static_reading: Make, key: Key) -> None:
    read = static_reading(profile="strict")
    assert outcome(await read(signed(key, header(key), claims()), introspect_cache_s=None)) == "token_kind_wrong"


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "EdDSA"])
async def test_elliptic_curve_keys_verify_too(static: StaticIssuer, static_reading: Make, algorithm: str) -> None:
    private: Any = {
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[algorithm]()
    handler = jwt.PyJWS().get_algorithm_by_name(algorithm)
    published = handler.to_jwk(private.public_key(), as_dict=True)
    static.keys = [{**published, "kid": "k", "use": "sig"}]
    token = jwt.encode(claims(), private, algorithm, headers={"kid": "k"})
    read = static_reading(algorithms=("ES256", "ES384", "EdDSA"))
    assert outcome(await read(token, introspect_cache_s=None)) == "ok"
    assert outcome(await static_reading()(token, introspect_cache_s=None)) == (
        "token_algorithm_refused" if algorithm == "ES384" else "ok"
    )


async def test_a_token_without_kid_is_read_when_one_key_fits(static_reading: Make, key: Key) -> None:
    token = signed(key, {"alg": "RS256", "typ": "JWT"}, claims())
    assert outcome(await static_reading()(token, introspect_cache_s=None)) == "ok"


async def test_of_two_keys_with_one_kid_either_may_have_signed(
    static: StaticIssuer, static_reading: Make, key: Key, other_key: Key
) -> None:
    static.keys = [other_key.jwk() | {"kid": key.kid}, key.jwk()]
    assert outcome(await static_reading()(signed(key, header(key), claims()), introspect_cache_s=None)) == "ok"
