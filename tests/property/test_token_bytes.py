"""Whatever arrives as a token, the answer is an identity, nothing, or a documented refusal: never an exception."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import jwt
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Introspection, Issuer
from gateway.core.ports.http import HttpAnswer
from gateway.core.reasons import REASONS, Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Identity
from gateway.demo.idp.token_issuer import Key
from gateway.identity.bearer.access_tokens import TokenReader, TrustedIssuer
from gateway.identity.oidc.client_auth import BasicCredential
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.oidc.introspection import Introspector

NOW = 1_800_000_000
ISSUER = "https://id.example.com"
KEY = Key()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
ROLES = "urn:zitadel:iam:org:project:roles"
NAMES = ("iss", "sub", "aud", "exp", "iat", "nbf", "client_id", "azp", "jti", "sid", "nonce", "events", "amr", "acr")
MORE_NAMES = ("auth_time", "scope", "cnf", "name", "email", "email_verified", ROLES, "urn:zitadel:iam:user:metadata")
CLAIMS = st.dictionaries(st.sampled_from((*NAMES, *MORE_NAMES)), JSON, max_size=4)
BASE = {
    "iss": ISSUER,
    "sub": "person",
    "aud": ["project"],
    "exp": NOW + 60,
    "iat": NOW,
    "client_id": "client",
    "jti": "V2_1-at_2",
    "token_type": "Bearer",
}


class Documents:
    """An issuer's HTTP answers."""

    def __init__(self, keys: bytes, answer: bytes = b"", discovery: bytes | None = None) -> None:
        self.keys, self.answer = keys, answer
        endpoints = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/k", "introspection_endpoint": f"{ISSUER}/i"}
        self.discovery = discovery if discovery is not None else json.dumps(endpoints).encode()

    async def get(self, url: str, _headers: Mapping[str, str] | None = None) -> HttpAnswer:
        return HttpAnswer(200, {}, self.discovery if url.endswith("configuration") else self.keys)

    async def post_form(self, _url: str, _form: object, _headers: object = None) -> HttpAnswer:
        return HttpAnswer(200, {}, self.answer)

    async def close(self) -> None:
        pass


GOOD_KEYS = json.dumps({"keys": [KEY.jwk()]}).encode()


def read(values: list[str], documents: Documents, *, introspects: bool = False, profile: str = "zitadel") -> Any:
    async def ask() -> Any:
        introspection = Introspection(client_id="gateway", method="basic")
        fields: Any = {"issuer": ISSUER, "profile": profile, "audiences": ("project",), "opaque": True}
        config = Issuer(**fields, introspection=introspection)
        directory = IssuerDirectory(config, documents, lambda: NOW)
        credential = BasicCredential("gateway", b"secret")
        introspector = Introspector(config, directory, documents, credential, lambda: NOW)
        reader = TokenReader([TrustedIssuer(config, directory, introspector)], lambda: NOW)
        facts = RequestFacts(
            method="GET",
            host="staff.example.com",
            path="/",
            segments=(),
            query="",
            query_fields=(),
            headers=tuple(("authorization", value) for value in values),
            protocol="h2",
            content_length=None,
            peer=Peer("192.0.2.1", 1),
            client_ip="192.0.2.1",
        )
        route = Route(service="s", host="staff.example.com", introspect_cache_s=10.0 if introspects else None)
        found = await reader.read(facts, route)
        await reader.close()
        return found

    found = asyncio.run(ask())
    if isinstance(found, Identity):
        json.dumps(found.document(), allow_nan=False).encode()
    else:
        assert found is None or (isinstance(found, Refusal) and found.reason in REASONS)
    return found


def part(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes) -> str:
    message = f"{part(header)}.{part(payload)}"
    signature = jwt.PyJWS().get_algorithm_by_name("RS256").sign(message.encode(), KEY.private)
    return f"{message}.{part(signature)}"


HEADER = json.dumps({"alg": "RS256", "kid": KEY.kid, "typ": "JWT"}).encode()


@given(st.lists(st.text(max_size=60) | st.text(max_size=60).map("Bearer ".__add__), max_size=3))
def test_any_authorization_header_is_answered(values: list[str]) -> None:
    assert not isinstance(read(values, Documents(GOOD_KEYS)), Identity)


@given(st.lists(st.binary(max_size=60).map(part), min_size=1, max_size=6))
def test_any_dotted_token_is_answered(parts: list[str]) -> None:
    assert not isinstance(read(["Bearer " + ".".join(parts)], Documents(GOOD_KEYS)), Identity)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), st.booleans())
def test_any_header_or_payload_with_a_good_signature_is_answered(raw: bytes, is_header: bool) -> None:
    token = signed(raw, json.dumps(BASE).encode()) if is_header else signed(HEADER, raw)
    assert not isinstance(read([f"Bearer {token}"], Documents(GOOD_KEYS)), Identity)


@given(st.dictionaries(st.sampled_from(("alg", "kid", "typ", "crit", "jku", "cty", "b64")), JSON, max_size=3))
def test_any_header_members_are_answered(members: dict[str, Any]) -> None:
    header = json.dumps(json.loads(HEADER) | members).encode()
    read([f"Bearer {signed(header, json.dumps(BASE).encode())}"], Documents(GOOD_KEYS))


@given(CLAIMS, st.sampled_from(("zitadel", "strict")))
def test_any_claims_with_a_good_signature_are_answered(claims: dict[str, Any], profile: str) -> None:
    header = HEADER if profile == "zitadel" else HEADER.replace(b"JWT", b"at+jwt")
    token = signed(header, json.dumps(BASE | claims).encode())
    found = read([f"Bearer {token}"], Documents(GOOD_KEYS), profile=profile)
    if isinstance(found, Identity):
        assert (found.issuer, found.expires_at) == (ISSUER, (BASE | claims)["exp"])


@given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()), st.booleans())
def test_any_introspection_answer_but_a_good_one_is_a_refusal(answer: bytes, opaque: bool) -> None:
    token = "opaque" if opaque else signed(HEADER, json.dumps(BASE).encode())
    found = read([f"Bearer {token}"], Documents(GOOD_KEYS, answer), introspects=True)
    assert isinstance(found, Refusal)


@given(CLAIMS, st.booleans())
def test_any_claims_of_an_introspection_answer_are_answered(claims: dict[str, Any], opaque: bool) -> None:
    token = "opaque" if opaque else signed(HEADER, json.dumps(BASE).encode())
    answer = json.dumps({"active": True, **BASE, **claims}).encode()
    read([f"Bearer {token}"], Documents(GOOD_KEYS, answer), introspects=True)


@given(
    st.binary(max_size=100)
    | JSON.map(lambda value: json.dumps({"keys": value}).encode())
    | st.dictionaries(st.sampled_from(("kty", "n", "e", "kid", "use", "alg", "crv", "x", "y", "key_ops")), JSON).map(
        lambda change: json.dumps({"keys": [KEY.jwk() | change]}).encode()
    ),
    st.none() | st.binary(max_size=60),
)
@settings(max_examples=60)
def test_any_documents_of_an_issuer_are_answered(keys: bytes, discovery: bytes | None) -> None:
    read([f"Bearer {signed(HEADER, json.dumps(BASE).encode())}"], Documents(keys, b"", discovery))
