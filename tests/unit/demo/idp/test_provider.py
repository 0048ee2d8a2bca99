from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jwt
import pytest

from gateway.demo.idp.accounts import API_CLIENT, APP_CLIENT, OTHER_PROJECT, PROJECT
from gateway.demo.idp.provider import DevProvider, serving


@pytest.fixture(scope="module")
def provider() -> Iterator[DevProvider]:
    with serving() as made:
        yield made


@pytest.fixture
async def http(provider: DevProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=provider.issuer, trust_env=False) as client:
        yield client
    provider.mend()


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


async def introspect(http: httpx.AsyncClient, provider: DevProvider, token: str) -> dict[str, Any]:
    quoted = httpx.QueryParams({"a": provider.api_client, "b": provider.api_secret})
    name, secret = (pair.split("=", 1)[1] for pair in str(quoted).split("&"))
    answer = await http.post("/oauth/v2/introspect", data={"token": token}, auth=(name, secret))
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_discovery_names_every_endpoint_below_the_issuer(http: httpx.AsyncClient, provider: DevProvider) -> None:
    document = (await http.get("/.well-known/openid-configuration")).json()
    assert document["issuer"] == provider.issuer
    endpoints = {name: url for name, url in document.items() if name.endswith(("_endpoint", "_uri"))}
    assert all(url.startswith(provider.issuer) for url in endpoints.values())
    assert endpoints["introspection_endpoint"].endswith("/oauth/v2/introspect")


async def test_published_keys_verify_tokens_and_may_be_cached(http: httpx.AsyncClient, provider: DevProvider) -> None:
    answer = await http.get("/oauth/v2/keys")
    assert answer.headers["cache-control"] == "max-age=300, must-revalidate"
    keys = {entry["kid"]: jwt.PyJWK(entry) for entry in answer.json()["keys"]}
    assert len(keys) == 2
    token = provider.access_token("alice")
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "JWT"
    assert jwt.decode(token, keys[header["kid"]], ["RS256"], audience=PROJECT)["iss"] == provider.issuer


def test_an_access_token_has_zitadels_shape(provider: DevProvider) -> None:
    claims = claims_of(provider.access_token("alice"))
    assert claims["aud"][-1] == PROJECT
    assert len(claims["aud"]) > 2
    assert claims["client_id"] == APP_CLIENT
    assert not claims.keys() & {"scope", "sid", "amr", "acr", "auth_time", "nonce"}
    head, _, tail = claims["jti"].partition("-at_")
    assert head.startswith("V2_")
    assert tail.isdigit()
    assert claims["urn:zitadel:iam:org:project:roles"] == claims[f"urn:zitadel:iam:org:project:{PROJECT}:roles"]


def test_tokens_of_one_session_share_it_until_it_ends(provider: DevProvider) -> None:
    first, second = (claims_of(provider.access_token("bob"))["jti"].split("-at_")[0] for _ in range(2))
    provider.end_session("bob")
    third = claims_of(provider.access_token("bob"))["jti"].split("-at_")[0]
    assert first == second != third


async def test_introspection_tells_what_the_token_does_not(http: httpx.AsyncClient, provider: DevProvider) -> None:
    for token in (provider.access_token("fay"), provider.opaque_token("fay")):
        answer = await introspect(http, provider, token)
        assert (answer["active"], answer["token_type"]) == (True, "Bearer")
        assert {"scope", "amr", "auth_time", "username"} <= answer.keys()
        assert not answer.keys() & {"sid", "acr", f"urn:zitadel:iam:org:project:{OTHER_PROJECT}:roles"}


async def test_introspection_says_no_more_than_that_a_token_is_inactive(
    http: httpx.AsyncClient, provider: DevProvider
) -> None:
    ended = provider.access_token("carol")
    provider.end_session("carol")
    for token in (
        ended,
        "unknown",
        "a.b.c",
        provider.expired_token("alice"),
        provider.unsigned_token("alice"),
        provider.foreign_token("alice"),
        provider.access_token("alice", aud=["elsewhere"]),
        provider.access_token("alice")[:-8] + "AAAAAAAA",
    ):
        assert await introspect(http, provider, token) == {"active": False}
    assert (await introspect(http, provider, provider.access_token("alice", aud=[API_CLIENT])))["active"] is True


async def test_a_stranger_may_not_introspect(http: httpx.AsyncClient, provider: DevProvider) -> None:
    form = {"token": provider.access_token("alice")}
    for extra in ({}, {"auth": ("stranger", "x")}, {"auth": (provider.api_client, "x")}):
        answer = await http.post("/oauth/v2/introspect", data=form, **extra)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"aud": "https://elsewhere.example"}, 401),
        ({"iss": "somebody"}, 401),
        ({"sub": "somebody"}, 401),
        ({"iat": -3_700}, 401),
        ({"iat": 30}, 401),
        ({"exp": -1}, 401),
    ],
)
async def test_an_assertion_is_checked_and_used_once(
    http: httpx.AsyncClient, provider: DevProvider, change: dict[str, Any], status: int
) -> None:
    file, now = json.loads(provider.api_key_file), provider._now()
    claims: dict[str, Any] = {
        "iss": provider.api_client,
        "sub": provider.api_client,
        "aud": provider.issuer,
        "iat": now - 1,
        "exp": now + 60,
        "jti": str(change),
    }
    claims |= {name: now + value if isinstance(value, int) else value for name, value in change.items()}
    form = {
        "token": provider.access_token("alice"),
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": jwt.encode(claims, file["key"], "RS256", headers={"kid": file["keyId"]}),
    }
    assert (await http.post("/oauth/v2/introspect", data=form)).status_code == status
    assert (await http.post("/oauth/v2/introspect", data=form)).status_code == 401


async def test_client_credentials_give_a_machine_its_token(http: httpx.AsyncClient, provider: DevProvider) -> None:
    good = (provider.machine_client, provider.machine_secret)
    form = {"grant_type": "client_credentials"}
    answer = await http.post("/oauth/v2/token", data=form, auth=good)
    assert answer.headers["cache-control"] == "no-store"
    assert claims_of(answer.json()["access_token"])["client_id"] == provider.machine_client
    assert (await http.post("/oauth/v2/token", data=form, auth=(good[0], "x"))).status_code == 401
    assert (await http.post("/oauth/v2/token", data=form)).status_code == 401
    assert (await http.post("/oauth/v2/token", data={"grant_type": "password"}, auth=good)).status_code == 400


async def test_keys_rotate_as_an_administrator_would(provider: DevProvider) -> None:
    old, new = provider.keys[0].kid, provider.keys[1].kid
    provider.rotate_keys()
    assert jwt.get_unverified_header(provider.access_token("alice"))["kid"] == new
    assert old in {key.kid for key in provider.keys}
    provider.delete_old_keys()
    assert old not in {key.kid for key in provider.keys}


async def test_a_demo_orders_tokens_and_trouble_over_http(http: httpx.AsyncClient, provider: DevProvider) -> None:
    for kind in ("jwt", "opaque", "expired", "alg_none", "foreign", "id_token", "logout_token"):
        answer = await http.post("/dev/token", json={"user": "alice", "kind": kind})
        assert answer.json()["token"], kind
    client = (await http.get("/dev/client")).json()
    assert (client["client_id"], client["project"]) == (provider.api_client, PROJECT)
    for action, body in (
        ("fault", {"endpoint": "keys", "kind": "500"}),
        ("rotate", {}),
        ("end-session", {"user": "bob"}),
    ):
        assert (await http.post(f"/dev/{action}", json=body)).status_code == 204
    assert (await http.get("/oauth/v2/keys")).status_code == 500
    for body in ({"user": "nobody"}, {"user": "alice", "kind": "magic"}, [], {}):
        assert (await http.post("/dev/token", json=body)).status_code == 400
    assert (await http.post("/dev/fault", json={"endpoint": "keys", "kind": "magic"})).status_code == 400
    assert (await http.post("/dev/magic")).status_code == 404


def test_it_runs_as_a_process_and_says_where() -> None:
    command = [sys.executable, "-m", "gateway.demo.idp.provider", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            document = httpx.get(f"{url}/.well-known/openid-configuration", trust_env=False).json()
        finally:
            process.terminate()
    assert document["issuer"] == url
