from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.core.reasons import REASONS, Refusal
from gateway.core.subject import Identity, Role
from gateway.demo.idp.accounts import ORG, OTHER_ORG, OTHER_PROJECT
from gateway.demo.idp.provider import DevProvider
from gateway.demo.idp.token_issuer import Key
from gateway.identity.bearer.access_tokens import TokenReader, TrustedIssuer
from gateway.identity.oidc.discovery import IssuerDirectory
from tests.support.issuer_world import NOW, STATIC, Clock, Reading, StaticIssuer, claims, facts, route, static_config

Make = Callable[..., Reading]


def b64(raw: bytes | str | dict[str, Any]) -> str:
    if isinstance(raw, dict):
        raw = json.dumps(raw)
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=").decode()


def signed(key: Key, header: dict[str, Any] | str, payload: dict[str, Any] | str) -> str:
    """A token with exactly this header and payload, whatever they say, and a good RS256 signature."""
    message = f"{b64(header)}.{b64(payload)}"
    signature = jwt.PyJWS().get_algorithm_by_name("RS256").sign(message.encode(), key.private)
    return f"{message}.{b64(signature)}"


def outcome(found: Any) -> str:
    if isinstance(found, Refusal):
        assert found.reason in REASONS
        return found.reason
    assert isinstance(found, Identity)
    return "ok"


def header(key: Key, **changes: Any) -> dict[str, Any]:
    return {"alg": "RS256", "typ": "JWT", "kid": key.kid} | changes


# ---- the Authorization header ----


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


# ---- RFC 8725, point by point; every token here is well signed unless its name says otherwise ----


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
        ({"name": 7}, "token_malformed"),
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


# ---- claims become an identity ----


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        ({"urn:zitadel:iam:org:project:roles": {"b": {"2": "d"}, "a": {"2": "d", "1": "d"}}}, ["a/1", "a/2", "b/2"]),
        ({"urn:zitadel:iam:org:project:roles": [{"a": {"1": "d"}}, {"b": {"1": "d"}}]}, ["a/1", "b/1"]),
        ({"urn:zitadel:iam:org:project:project:roles": {"a": {"1": "d"}}}, ["a/1"]),
        (
            {
                "urn:zitadel:iam:org:project:roles": {"a": {"1": "d"}},
                "urn:zitadel:iam:org:project:project:roles": {"a": {"1": "d"}},
            },
            ["a/1"],
        ),
        ({"urn:zitadel:iam:org:project:elsewhere:roles": {"admin": {"1": "d"}}}, []),
        (
            {
                "urn:zitadel:iam:org:project:roles": {"admin": {"1": "d"}},
                "urn:zitadel:iam:org:project:elsewhere:roles": {"admin": {"1": "d"}},
            },
            [],
        ),
        ({"urn:zitadel:iam:org:project:roles": {"a": {}}}, []),
        ({"urn:zitadel:iam:org:project:roles": None}, []),
        ({}, []),
    ],
)
async def test_roles_keep_their_organisation_and_belong_to_our_project(
    static_reading: Make, key: Key, granted: dict[str, Any], expected: list[str]
) -> None:
    found = await static_reading()(signed(key, header(key), claims(**granted)), introspect_cache_s=None)
    assert [f"{role.key}/{role.org}" for role in found.roles] == expected


@pytest.mark.parametrize(
    ("where", "extra", "expected"),
    [
        (
            "urn:zitadel:iam:user:metadata/department",
            {"urn:zitadel:iam:user:metadata": {"department": "cGVvcGxl"}},
            "people",
        ),
        ("urn:zitadel:iam:user:metadata/department", {"urn:zitadel:iam:user:metadata": {"department": "!"}}, ""),
        ("urn:zitadel:iam:user:metadata/department", {"urn:zitadel:iam:user:metadata": {"department": "__8"}}, ""),
        ("urn:zitadel:iam:user:metadata/department", {"urn:zitadel:iam:user:metadata": "people"}, ""),
        ("department", {"department": "people"}, "people"),
        ("department", {"department": ["people"]}, ""),
        ("https://x.example/dept", {"https://x.example/dept": "people"}, "people"),
        ("profile/dept", {"profile": {"dept": "people"}}, "people"),
    ],
)
async def test_the_department_is_found_where_the_configuration_says(
    static_reading: Make, key: Key, where: str, extra: dict[str, Any], expected: str
) -> None:
    read = static_reading(department_claim=where)
    found = await read(signed(key, header(key), claims(**extra)), introspect_cache_s=None)
    assert found.department == expected


async def test_an_address_counts_only_when_it_is_verified(static_reading: Make, key: Key) -> None:
    for verified, expected in ((True, "a@b.example"), (None, ""), (False, ""), ("true", "")):
        token = signed(key, header(key), claims(email="a@b.example", email_verified=verified))
        assert (await static_reading()(token, introspect_cache_s=None)).email == expected


async def test_the_rest_of_the_identity(static_reading: Make, key: Key) -> None:
    extra = {"sid": "s", "amr": ["pwd"], "acr": "a", "auth_time": 5, "scope": "b  a b", "cnf": {"x5t#S256": "t"}}
    found = await static_reading()(
        signed(key, header(key), claims(**extra, name="\u7530\u4e2d\u3000\u592a", preferred_username="tanaka")),
        introspect_cache_s=None,
    )
    assert (found.session_hint, found.amr, found.acr, found.auth_time) == ("s", ("pwd",), "a", 5)
    assert (found.scopes, dict(found.confirmation), found.name) == (("b", "a"), {"x5t#S256": "t"}, "tanaka")


# ---- memory ----


async def test_a_repeated_token_is_not_verified_again(
    static_reading: Make, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, token = static_reading(), signed(key, header(key), claims())
    first = await read(token, introspect_cache_s=None)
    monkeypatch.setattr("gateway.identity.bearer.access_tokens.read_object", lambda *_, **__: None)
    assert await read(token, introspect_cache_s=None) is first


async def test_a_remembered_token_still_expires(static_reading: Make, key: Key, clock: Clock) -> None:
    read, token = static_reading(), signed(key, header(key), claims(exp=int(NOW) + 60))
    assert outcome(await read(token, introspect_cache_s=None)) == "ok"
    clock.pass_(64.9)
    assert outcome(await read(token, introspect_cache_s=None)) == "ok"
    clock.pass_(0.1)
    assert outcome(await read(token, introspect_cache_s=None)) == "token_expired"


async def test_a_remembered_token_goes_with_its_key(
    static: StaticIssuer, static_reading: Make, key: Key, other_key: Key, clock: Clock
) -> None:
    read, token = static_reading(), signed(key, header(key), claims())
    assert outcome(await read(token, introspect_cache_s=None)) == "ok"
    static.keys = [other_key.jwk()]
    clock.pass_(370)
    assert outcome(await read(token, introspect_cache_s=None)) == "token_key_unknown"


async def test_a_remembered_token_goes_when_its_keys_are_too_old(
    static: StaticIssuer, static_reading: Make, key: Key, clock: Clock
) -> None:
    read, token = static_reading(), signed(key, header(key), claims(exp=int(NOW) + 90_000))
    assert outcome(await read(token, introspect_cache_s=None)) == "ok"
    static.is_down = True
    clock.pass_(301)
    assert outcome(await read(token, introspect_cache_s=None)) == "ok"
    clock.pass_(4_000)
    assert outcome(await read(token, introspect_cache_s=None)) == "issuer_unavailable"


async def test_the_memory_is_bounded(static: StaticIssuer, key: Key, clock: Clock) -> None:
    config = static_config()
    reader = TokenReader([TrustedIssuer(config, IssuerDirectory(config, static, clock))], clock, size=3)
    for number in range(5):
        token = signed(key, header(key), claims(jti=str(number)))
        assert outcome(await reader.read(facts(f"Bearer {token}"), route(introspect_cache_s=None))) == "ok"
    assert len(reader._verified) == 3
    await reader.close()


async def test_a_service_narrows_the_issuers_also_for_a_remembered_token(static_reading: Make, key: Key) -> None:
    read, token = static_reading(), signed(key, header(key), claims())
    elsewhere = {"issuers": ("https://elsewhere.example",), "introspect_cache_s": None}
    assert outcome(await read(token, **elsewhere)) == "token_issuer_unknown"
    assert outcome(await read(token, issuers=(STATIC,), introspect_cache_s=None)) == "ok"
    assert outcome(await read(token, **elsewhere)) == "token_issuer_unknown"


def test_an_issuer_is_configured_once(static: StaticIssuer, clock: Clock) -> None:
    config = static_config()
    trusted = TrustedIssuer(config, IssuerDirectory(config, static, clock))
    with pytest.raises(ValueError, match="twice"):
        TokenReader([trusted, trusted], clock)


# ---- against the development provider, over HTTP ----


async def test_the_issuer_fills_what_zitadel_leaves_out_of_its_jwts(provider: DevProvider, reading: Make) -> None:
    read, token = reading(), provider.access_token("fay")
    bare = await read(token, introspect_cache_s=None)
    assert (bare.amr, bare.auth_time, bare.scopes, bare.email) == ((), None, (), "")
    assert bare.roles == (Role("staff", ORG), Role("staff", OTHER_ORG))
    assert (bare.department, bare.org) == ("people", ORG)
    full = await read(token)
    assert (full.amr, full.auth_time, full.name) == (("pwd", "otp", "mfa"), NOW, "Fay Fox")
    assert ("openid" in full.scopes, full.email, full.kind) == (True, "fay@acme.localhost", "jwt")
    assert (full.roles, full.session_hint) == (bare.roles, bare.session_hint)
    assert full.session_hint.startswith("V2_")
    assert await read(token) is full
    assert provider.asked["introspect"] == 1


async def test_roles_of_another_project_are_not_ours(provider: DevProvider, reading: Make) -> None:
    token = provider.access_token("fay")
    assert f"urn:zitadel:iam:org:project:{OTHER_PROJECT}:roles" in jwt.decode(
        token, options={"verify_signature": False}
    )
    found = await reading()(token)
    assert "admin" not in {role.key for role in found.roles}


async def test_an_ended_session_ends_its_jwts_within_seconds(
    provider: DevProvider, reading: Make, clock: Clock
) -> None:
    read, token = reading(), provider.access_token("alice")
    assert outcome(await read(token)) == "ok"
    provider.end_session("alice")
    assert outcome(await read(token)) == "ok"
    clock.pass_(10)
    assert outcome(await read(token)) == "token_inactive"
    assert outcome(await read(token, introspect_cache_s=None)) == "ok"


async def test_a_service_may_want_the_word_of_the_issuer_more_often(
    provider: DevProvider, reading: Make, clock: Clock
) -> None:
    read, token = reading(), provider.access_token("alice")
    assert outcome(await read(token)) == "ok"
    provider.end_session("alice")
    clock.pass_(2)
    assert outcome(await read(token, introspect_cache_s=2.0)) == "token_inactive"


async def test_a_service_that_wants_introspection_gets_none_without_it(provider: DevProvider, reading: Make) -> None:
    token = provider.access_token("alice")
    assert outcome(await reading(introspects=False)(token)) == "issuer_unavailable"
    assert outcome(await reading(introspects=False)(token, introspect_cache_s=None)) == "ok"


async def test_each_bad_token_of_the_provider_has_its_own_reason(provider: DevProvider, reading: Make) -> None:
    read = reading()
    for token, expected in (
        (provider.expired_token("alice"), "token_expired"),
        (provider.unsigned_token("alice"), "token_algorithm_refused"),
        (provider.foreign_token("alice"), "token_issuer_unknown"),
        (provider.id_token("alice"), "token_kind_wrong"),
        (provider.logout_token("alice"), "token_kind_wrong"),
        (provider.access_token("alice", aud=["elsewhere"]), "token_audience_wrong"),
        (provider.access_token("alice", nbf=int(NOW) + 60), "token_not_yet_valid"),
    ):
        assert outcome(await read(token)) == expected


async def test_a_rotated_key_is_followed_and_a_deleted_one_forgotten(
    provider: DevProvider, reading: Make, clock: Clock
) -> None:
    read = reading()
    old = provider.access_token("alice")
    assert outcome(await read(old)) == "ok"
    provider.rotate_keys()
    provider.rotate_keys()
    assert outcome(await read(provider.access_token("alice"))) == "ok"
    assert outcome(await read(old)) == "ok"
    provider.delete_old_keys()
    clock.pass_(370)
    assert outcome(await read(old)) == "token_key_unknown"


async def test_opaque_tokens_are_asked_about(provider: DevProvider, reading: Make, clock: Clock) -> None:
    read, token = reading(), provider.opaque_token("alice")
    found = await read(token)
    assert (found.kind, found.subject) == ("opaque", provider.people["alice"].subject)
    assert (found.amr, found.department) == (("pwd", "otp", "mfa"), "people")
    assert {role.key for role in found.roles} == {"staff", "admin"}
    assert outcome(await read(token, introspect_cache_s=None)) == "ok"
    provider.end_session("alice")
    clock.pass_(10)
    assert outcome(await read(token)) == "token_inactive"
    assert outcome(await read("never-issued")) == "token_inactive"


async def test_opaque_tokens_are_for_issuers_that_issue_them(provider: DevProvider, reading: Make) -> None:
    token = provider.opaque_token("alice")
    assert outcome(await reading(opaque=False)(token)) == "token_malformed"
    assert outcome(await reading()(token, issuers=("https://elsewhere.example",))) == "token_malformed"
    assert outcome(await reading(introspects=False)(token)) == "issuer_unavailable"
    assert provider.asked["introspect"] == 0


async def test_a_machine_token_of_the_token_endpoint_is_read(provider: DevProvider, reading: Make, http: Any) -> None:
    pair = base64.b64encode(f"{provider.machine_client}:{provider.machine_secret}".encode()).decode()
    answer = await http.post_form(
        f"{provider.issuer}/oauth/v2/token", {"grant_type": "client_credentials"}, {"authorization": f"Basic {pair}"}
    )
    found = await reading()(json.loads(answer.body)["access_token"])
    assert (outcome(found), found.client_id, found.amr) == ("ok", provider.machine_client, ())
