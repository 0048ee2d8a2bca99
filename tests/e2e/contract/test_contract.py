"""What the gateway takes for granted of an OpenID provider, held against several: one set of tests for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from gateway.core.reasons import Refusal
from gateway.core.subject import Identity
from gateway.identity.oidc.id_token import verified_claims
from gateway.identity.oidc.introspection import Active
from tests.support.contract_gateway import Gateway, Logouts, gateway_at
from tests.support.contract_providers import REDIRECT, SIGNED_OUT, ZITADEL, Emulator, Panva, Provider

pytestmark = [pytest.mark.timeout(60), pytest.mark.xdist_group("contract")]
with_browsers = pytest.mark.parametrize(
    "provider", ["emulator", "oidc-provider-jwt", "oidc-provider-opaque"], indirect=True
)
A_MOMENT_S = 1.1  # times in tokens are whole seconds


@pytest.fixture
async def gateway(provider: Provider) -> AsyncIterator[Gateway]:
    async with gateway_at(provider) as made:
        yield made


def reason(outcome: object) -> str:
    assert isinstance(outcome, Refusal), outcome
    return outcome.reason


def error(answer: httpx.Response) -> tuple[int, str]:
    """An OAuth error (RFC 6749 section 5.2)."""
    return answer.status_code, answer.json()["error"]


async def test_a_real_zitadel_was_asked_too(started: Callable[[str], Provider]) -> None:
    if not all(ZITADEL):
        pytest.skip("no real Zitadel: set ZITADEL_URL and ZITADEL_PAT (a user who is IAM_OWNER and IAM_LOGIN_CLIENT)")
    assert started("zitadel").issuer == ZITADEL[0].rstrip("/")


# ---- what it publishes ----


async def test_it_names_itself_exactly_and_has_every_endpoint(provider: Provider, gateway: Gateway) -> None:
    published = await gateway.party.published()
    assert not isinstance(published, Refusal), published
    wanted = {"authorization_endpoint", "token_endpoint", "end_session_endpoint", "userinfo_endpoint"}
    assert published.endpoints.keys() == wanted
    assert published.introspection_endpoint is not None
    assert (
        "S256"
        in provider.browser.get(f"{provider.issuer}/.well-known/openid-configuration").json()[
            "code_challenge_methods_supported"
        ]
    )


async def test_another_spelling_of_its_name_is_another_issuer(provider: Provider) -> None:
    async with gateway_at(provider, issuer=provider.issuer + "/") as other:
        assert reason(await other.party.published()) == "issuer_unavailable"


async def test_its_keys_verify_what_it_signs_and_nothing_else(gateway: Gateway) -> None:
    tokens, claims = await gateway.sign_in()
    assert tokens.id_token is not None
    verified = await verified_claims(tokens.id_token, gateway.config, gateway.directory)
    assert not isinstance(verified, Refusal), verified
    assert verified[2]["sub"] == claims["sub"]
    head, body, tail = tokens.id_token.split(".")
    forged = f"{head}.{body}.{'A' * 8}{tail[8:]}"
    assert reason(await verified_claims(forged, gateway.config, gateway.directory)) == "token_signature_invalid"


# ---- people sign in ----


async def test_a_person_signs_in_with_a_code_and_pkce(provider: Provider, gateway: Gateway) -> None:
    back = await gateway.go(max_age_s=300)
    published = await gateway.party.published()
    assert not isinstance(published, Refusal)
    assert back.query.get("iss") == (provider.issuer if published.names_itself else None)
    outcome = await gateway.redeem(back, max_age_s=300)
    assert not isinstance(outcome, Refusal), outcome
    tokens, claims = outcome
    assert claims["nonce"] == back.nonce
    assert claims["sid"]
    assert "pwd" in claims["amr"]
    assert 0 <= time.time() - claims["auth_time"] < 10
    assert claims["email"].endswith("@acme.localhost") or claims["email"].endswith("@contract.example")
    assert tokens.refresh_token is not None
    assert tokens.expires_at is not None
    assert tokens.expires_at > time.time()


async def test_an_id_token_for_another_nonce_is_refused(gateway: Gateway) -> None:
    assert reason(await gateway.redeem(await gateway.go(), nonce="n" * 43)) == "login_failed"


async def test_a_code_is_worth_nothing_without_its_verifier(gateway: Gateway) -> None:
    assert reason(await gateway.redeem(await gateway.go(), verifier="v" * 43)) == "login_failed"


async def test_a_code_is_good_once(gateway: Gateway) -> None:
    back = await gateway.go()
    assert not isinstance(await gateway.redeem(back), Refusal)
    assert reason(await gateway.redeem(back)) == "login_failed"


async def test_a_code_belongs_to_its_redirect_uri(provider: Provider, gateway: Gateway) -> None:
    back = await gateway.go()
    form = {"grant_type": "authorization_code", "code": back.code, "code_verifier": back.verifier}
    answer = provider.post("token_endpoint", form | {"redirect_uri": REDIRECT + "/other"})
    assert error(answer) == (400, "invalid_grant")


async def test_a_client_with_a_wrong_secret_gets_no_tokens(provider: Provider, gateway: Gateway) -> None:
    back = await gateway.go()
    form = {"grant_type": "authorization_code", "code": back.code, "code_verifier": back.verifier}
    answer = provider.post("token_endpoint", form | {"redirect_uri": REDIRECT}, (provider.client, "wrong"))
    assert error(answer) == (401, "invalid_client")
    async with gateway_at(provider, secret="wrong") as other:
        assert reason(await other.redeem(await other.go())) == "issuer_unavailable"


async def test_a_grant_that_nobody_knows_is_refused_as_such(provider: Provider) -> None:
    assert error(provider.post("token_endpoint", {"grant_type": "unheard-of"})) == (400, "unsupported_grant_type")


@with_browsers
async def test_a_second_sign_in_is_as_old_as_the_first_and_refused_here_where_that_is_too_old(
    provider: Provider,
) -> None:
    async with gateway_at(provider, leeway_s=0) as gateway:
        _, first = await gateway.sign_in()
        await asyncio.sleep(A_MOMENT_S)
        url, *_ = await gateway.ask()
        assert isinstance(provider.begin(url), str), "it asked for the password again"
        _, second = await gateway.sign_in()
        assert (second["sid"], second["auth_time"]) == (first["sid"], first["auth_time"])
        assert reason(await gateway.redeem(await gateway.go(), max_age_s=1e-3)) == "auth_stale"


@with_browsers
async def test_a_fresh_sign_in_can_be_demanded(gateway: Gateway) -> None:
    _, first = await gateway.sign_in()
    await asyncio.sleep(A_MOMENT_S)
    for wanted in ({"prompt": "login"}, {"max_age_s": 0.0}):
        url, *_ = await gateway.ask(**wanted)
        assert not isinstance(gateway.provider.begin(url), str), "a page, not a code"
        _, again = await gateway.sign_in(**wanted)
        assert again["auth_time"] > first["auth_time"]
        assert again["sub"] == first["sub"]


@with_browsers
async def test_without_a_session_prompt_none_says_so(provider: Provider, gateway: Gateway) -> None:
    url, state, _, _ = await gateway.ask(prompt="none")
    back = provider.begin(url)
    assert isinstance(back, str)
    said = dict(parse_qsl(urlsplit(back).query))
    assert (said["error"], said["state"]) == ("login_required", state)


@with_browsers
async def test_without_pkce_there_is_no_code(provider: Provider, gateway: Gateway) -> None:
    url, *_ = await gateway.ask()
    back = provider.begin(url.replace("code_challenge", "ignored"))
    assert isinstance(back, str)
    assert dict(parse_qsl(urlsplit(back).query))["error"] == "invalid_request"


async def test_an_address_that_is_not_registered_is_never_gone_to(provider: Provider, gateway: Gateway) -> None:
    url, *_ = await gateway.ask()
    answer = provider.browser.get(url.replace("callback%2Fcontract", "callback%2Felsewhere"))
    assert answer.status_code == 400
    assert "location" not in answer.headers


# ---- refresh ----


async def test_a_refresh_brings_new_tokens_about_the_same_sign_in(gateway: Gateway) -> None:
    tokens, claims = await gateway.sign_in()
    assert tokens.refresh_token is not None
    renewed = await gateway.party.refresh(tokens.refresh_token)
    assert not isinstance(renewed, Refusal), renewed
    assert renewed.refresh_token not in {None, tokens.refresh_token}
    assert renewed.access_token != tokens.access_token
    said = await gateway.party.renewed_claims(renewed, subject=claims["sub"], auth_time=claims["auth_time"])
    assert said is not None
    assert not isinstance(said, Refusal), said
    assert said["sid"] == claims["sid"]


async def test_a_refresh_token_is_good_once(gateway: Gateway) -> None:
    tokens, _ = await gateway.sign_in()
    assert tokens.refresh_token is not None
    assert not isinstance(await gateway.party.refresh(tokens.refresh_token), Refusal)
    assert reason(await gateway.party.refresh(tokens.refresh_token)) == "session_revoked"


async def test_a_refresh_token_that_is_none_ends_the_session(gateway: Gateway) -> None:
    assert reason(await gateway.party.refresh("garbage")) == "session_revoked"


# ---- access tokens ----


async def test_an_access_token_opens_a_service(provider: Provider, gateway: Gateway) -> None:
    tokens, claims = await gateway.sign_in(api=True)
    identity = await gateway.read(tokens.access_token)
    assert isinstance(identity, Identity), identity
    assert identity.subject == claims["sub"]
    assert identity.kind == ("opaque" if provider.opaque else "jwt")
    assert identity.client_id == provider.client
    assert identity.expires_at > time.time()
    if isinstance(provider, Panva):
        assert [role.key for role in identity.roles] == ["staff"]


async def test_an_access_token_for_somebody_else_opens_nothing(provider: Provider, gateway: Gateway) -> None:
    tokens, _ = await gateway.sign_in(api=True)
    async with gateway_at(provider, audiences=("https://another.example/",)) as other:
        assert reason(await other.read(tokens.access_token)) == "token_audience_wrong"


async def test_an_id_token_is_no_access_token(provider: Provider, gateway: Gateway) -> None:
    tokens, _ = await gateway.sign_in()
    assert tokens.id_token is not None
    async with gateway_at(provider, audiences=(provider.client, provider.audience)) as trusting:
        assert reason(await trusting.read(tokens.id_token)) == "token_kind_wrong"


async def test_a_token_that_is_none_is_inactive(gateway: Gateway) -> None:
    assert reason(await gateway.introspect("garbage")) == "token_inactive"


async def test_introspection_is_for_those_who_show_a_secret(provider: Provider) -> None:
    answer = provider.post("introspection_endpoint", {"token": "garbage"}, (provider.api_client, "wrong"))
    assert error(answer) == (401, "invalid_client")


async def test_an_access_token_that_was_revoked_is_inactive(provider: Provider, gateway: Gateway) -> None:
    """RFC 7009. Where a provider keeps no record of its JWTs it must say so, and nothing vouches for one."""
    tokens, _ = await gateway.sign_in(api=True)
    if provider.introspects:
        assert isinstance(await gateway.introspect(tokens.access_token), Active)
    answer = provider.post("revocation_endpoint", {"token": tokens.access_token})
    if provider.introspects:
        assert answer.status_code == 200
        assert reason(await gateway.introspect(tokens.access_token)) == "token_inactive"
    else:
        assert error(answer) == (400, "unsupported_token_type")
        assert reason(await gateway.introspect(tokens.access_token)) == "issuer_unavailable"
        assert reason(await gateway.read(tokens.access_token, asks=True)) == "issuer_unavailable"


async def test_a_refresh_token_that_was_revoked_is_over(provider: Provider, gateway: Gateway) -> None:
    tokens, _ = await gateway.sign_in()
    assert tokens.refresh_token is not None
    assert provider.post("revocation_endpoint", {"token": tokens.refresh_token}).status_code == 200
    assert provider.post("revocation_endpoint", {"token": "garbage"}).status_code == 200
    assert reason(await gateway.party.refresh(tokens.refresh_token)) == "session_revoked"


async def test_userinfo_is_about_the_same_person(provider: Provider, gateway: Gateway) -> None:
    tokens, claims = await gateway.sign_in()
    url = provider.endpoint("userinfo_endpoint")
    answer = await gateway.http.get(url, {"authorization": f"Bearer {tokens.access_token}"})
    assert answer.status == 200
    assert httpx.Response(200, content=answer.body).json()["sub"] == claims["sub"]
    assert (await gateway.http.get(url, {"authorization": "Bearer garbage"})).status == 401


# ---- the end ----


async def test_a_sign_out_comes_back_with_its_state_and_ends_the_session(provider: Provider, gateway: Gateway) -> None:
    tokens, _ = await gateway.sign_in()
    url = await gateway.party.sign_out_url(tokens.id_token, SIGNED_OUT, "state-1")
    assert url is not None
    assert provider.sign_out(url) == f"{SIGNED_OUT}?state=state-1"
    assert tokens.refresh_token is not None
    assert reason(await gateway.party.refresh(tokens.refresh_token)) == "session_revoked"


async def test_a_sign_out_goes_nowhere_else(provider: Provider, gateway: Gateway) -> None:
    tokens, _ = await gateway.sign_in()
    url = await gateway.party.sign_out_url(tokens.id_token, SIGNED_OUT + "/elsewhere", "state-1")
    assert url is not None
    answer = provider.begin(url)
    assert isinstance(answer, httpx.Response)
    assert answer.status_code == 400


async def test_the_end_of_a_session_is_told_and_believed_once(
    provider: Provider, gateway: Gateway, logouts: Logouts
) -> None:
    if not provider.tells_logouts:
        pytest.skip("that Zitadel cannot reach this machine: set ZITADEL_REACHES_US to the name it has there")
    tokens, claims = await gateway.sign_in()
    url = await gateway.party.sign_out_url(tokens.id_token, SIGNED_OUT, "s")
    assert url is not None
    provider.sign_out(url)
    token = await asyncio.to_thread(logouts.tokens.get, timeout=10)
    assert await gateway.receiver.receive(token) == 1
    assert gateway.ender.ended == [(claims["sid"], None)]
    assert reason(await gateway.receiver.receive(token)) == "token_malformed"
    head, body, tail = token.split(".")
    assert reason(await gateway.receiver.verify(f"{head}.{body}.{'A' * 8}{tail[8:]}")) == "token_signature_invalid"
    assert reason(await gateway.read(token)) == "token_kind_wrong", "and it is no access token"
    assert len(gateway.ender.ended) == 1


# ---- faults, which only the emulator has to order ----


@pytest.fixture
def broken(started: Callable[[str], Provider]) -> Iterator[Emulator]:
    found = started("emulator")
    assert isinstance(found, Emulator)
    found.forget()
    yield found
    found.dev.mend()


@pytest.mark.parametrize("kind", ["slow", "500", "401", "garbage", "huge", "redirect", "empty"])
@pytest.mark.parametrize("endpoint", ["discovery", "keys", "token", "introspect"])
async def test_a_provider_that_fails_is_unavailable_and_grants_nothing(
    broken: Emulator, endpoint: str, kind: str
) -> None:
    async with gateway_at(broken) as first:
        back = await first.go()
    async with gateway_at(broken, patience_s=0.5) as gateway:
        broken.dev.fault(endpoint, kind)
        if endpoint == "introspect":
            assert reason(await gateway.introspect("garbage")) == "issuer_unavailable"
            return
        # An answer of 200 that holds no tokens is one that must not be believed.
        nonsense = endpoint == "token" and kind in {"empty", "garbage"}
        assert reason(await gateway.redeem(back)) == ("login_failed" if nonsense else "issuer_unavailable")


async def test_a_provider_that_names_another_issuer_is_not_believed(broken: Emulator) -> None:
    broken.dev.fault("discovery", "issuer")
    async with gateway_at(broken) as gateway:
        assert reason(await gateway.party.published()) == "issuer_unavailable"


@pytest.mark.parametrize(
    ("switch", "value", "expected"),
    [
        ("empty_amr", True, "amr_missing"),
        ("no_auth_time", True, "auth_stale"),
        ("skew_s", 60.0, "login_failed"),
        ("skew_s", -400.0, "login_failed"),
        ("unavailable", True, "issuer_unavailable"),
        ("slow_s", 1.0, "issuer_unavailable"),
    ],
)
async def test_what_a_zitadel_may_get_wrong_is_refused(
    broken: Emulator, switch: str, value: object, expected: str
) -> None:
    async with gateway_at(broken, patience_s=0.5) as gateway:
        back = await gateway.go(max_age_s=300)
        broken.dev.instance.switches.set(switch, value)
        assert reason(await gateway.redeem(back, max_age_s=300)) == expected
