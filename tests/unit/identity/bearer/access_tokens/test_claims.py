from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest

from gateway.core.subject import Role
from gateway.demo.idp.accounts import ORG, OTHER_ORG, OTHER_PROJECT
from gateway.demo.idp.provider import DevProvider
from gateway.demo.idp.token_issuer import Key
from gateway.identity.bearer.access_tokens import TokenReader, TrustedIssuer
from gateway.identity.oidc.discovery import IssuerDirectory
from tests.support.access_token_world import Make, header, outcome, signed
from tests.support.issuer_world import NOW, STATIC, Clock, StaticIssuer, claims, facts, route, static_config


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
    for verified, expected in (
        (True, "a@b.example"),
        (None, ""),
        (False, ""),
        ("false", ""),
        (1, ""),
        ("true", "a@b.example"),
    ):
        token = signed(key, header(key), claims(email="a@b.example", email_verified=verified))
        assert (await static_reading()(token, introspect_cache_s=None)).email == expected


async def test_the_rest_of_the_identity(static_reading: Make, key: Key) -> None:
    extra = {"sid": "s", "amr": ["pwd"], "acr": "a", "auth_time": 5, "scope": "b  a b", "cnf": {"x5t#S256": "t"}}
    found = await static_reading()(
        signed(key, header(key), claims(**extra, name="\u7530\u4e2d\u3000\u592a", preferred_username="tanaka")),
        introspect_cache_s=None,
    )
    assert (found.session_hint, found.amr, found.acr, found.auth_time) == ("s", ("pwd",), "a", 5)
    assert (found.scopes, dict(found.confirmation), found.name) == (
        ("b", "a"),
        {"x5t#S256": "t"},
        "\u7530\u4e2d\u3000\u592a",
    )


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
