from __future__ import annotations

from typing import Any

import pytest

from gateway.config import Issuer
from gateway.core.subject import Identity
from gateway.identity.oidc.claim_paths import is_name, texts_at
from gateway.identity.oidc.claims import identity_of


@pytest.mark.parametrize(
    ("path", "claims", "expected"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["a", "b"]}}, ["a", "b"]),
        ("resource_access.*.roles", {"resource_access": {"x": {"roles": ["a"]}, "y": {"roles": "b"}}}, ["a", "b"]),
        ("cognito:groups", {"cognito:groups": ["staff"]}, ["staff"]),
        ("https://acme.example/roles", {"https://acme.example/roles": ["staff"]}, ["staff"]),
        ("groups", {"groups": "staff"}, ["staff"]),
        ("groups", {"groups": {"staff": {"org": "1"}}}, ["staff"]),
        ("groups", {"groups": ["", None, 7, ["x"], {"a": 1}, "a\nb", "/staff"]}, ["/staff"]),
        ("realm_access.roles", {"realm_access": "text"}, []),
        ("realm_access.roles", {}, []),
    ],
)
def test_roles_stand_at_paths_in_any_shape(path: str, claims: dict[str, Any], expected: list[str]) -> None:
    assert list(texts_at(claims, path)) == expected


def test_names_have_joiners_spaces_and_emoji_but_no_controls() -> None:
    for name in (
        "\u0646\u0627\u0645\u200c\u0647\u0627",
        "Anne\u00a0Marie",
        "Ada \U0001f469\u200d\U0001f4bb",
        "\u7530\u4e2d\u3000\u592a",
    ):
        assert is_name(name), name
    for text in ("", " ", "a\nb", "a\x00", "admin\u202e", "a\u2028b", "x" * 1_025):
        assert not is_name(text), text


def identity(payload: dict[str, Any], **settings: Any) -> Identity:
    config = Issuer.model_validate({"issuer": "https://id.example.com", "audiences": ["gw"], **settings})
    made = identity_of({"sub": "1", **payload}, config, kind="session", expires_at=1.0, hint="h")
    assert isinstance(made, Identity)
    return made


def test_the_configuration_says_where_roles_names_and_departments_are() -> None:
    paths = {"roles": ["realm_access.roles", "groups"], "name": ["profile.shown"], "department": "profile.unit"}
    claims = {
        "realm_access": {"roles": ["staff"]},
        "groups": "it",
        "profile": {"shown": "Ada", "unit": "research"},
        "email": "ada@acme.example",
        "email_verified": "true",
    }
    person = identity(claims, claims=paths)
    assert [role.key for role in person.roles] == ["it", "staff"]
    assert (person.name, person.department, person.email) == ("Ada", "research", "ada@acme.example")


def test_an_odd_optional_claim_ends_nothing_and_grants_nothing() -> None:
    person = identity({"name": 7, "email": ["x"], "email_verified": True, "roles": 5, "locale": {"a": [1]}})
    assert (person.name, person.email, person.roles) == ("", "", ())


def test_zitadel_roles_keep_their_organisation_beside_others() -> None:
    claims = {"urn:zitadel:iam:org:project:roles": {"admin": {"1": "a.example"}}, "groups": ["staff"]}
    person = identity(claims, profile="zitadel", claims={"roles": ["groups"]})
    assert [(role.key, role.org) for role in person.roles] == [("admin", "1"), ("staff", "")]
