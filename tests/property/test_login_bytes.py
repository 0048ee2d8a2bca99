"""The sign-in's table and the readers of what browsers send: no input opens what only the one way may open."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import jwt
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Issuer
from gateway.core.cookies import SESSION, is_value, read_cookie, sets_ours, without_ours
from gateway.core.ports.http import HttpAnswer
from gateway.core.reasons import REASONS, Refusal
from gateway.demo.idp.token_issuer import Key
from gateway.identity.jose.jws import b64url_encode
from gateway.identity.login.flow import NEXT, Event, Step, advance
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.oidc.id_token import Expected, check_id_token

NOW = 1_800_000_000
ISSUER = "https://id.example.com"
KEY = Key()
GOOD = {
    "iss": ISSUER,
    "sub": "ada",
    "aud": ["client", "project"],
    "azp": "client",
    "exp": NOW + 600,
    "iat": NOW,
    "auth_time": NOW,
    "nonce": "n",
    "amr": ["pwd"],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
COOKIES = st.lists(
    st.text(st.sampled_from('ab;= ,"\t') | st.characters(codec="latin-1"), max_size=30)
    | st.sampled_from([f"{SESSION}={'a' * 43}", f"{SESSION}=x", SESSION, f" {SESSION} = {'b' * 43} ", "c=1"]),
    max_size=4,
)


@given(st.lists(st.sampled_from(Event), max_size=12))
def test_only_the_one_way_through_the_table_grants(events: Sequence[Event]) -> None:
    step = Step.WAITING
    for event in events:
        step = advance(step, event)
    way = [Event.SENT, Event.CODE, Event.TOKENS, Event.SESSION]
    assert (step is Step.GRANTED) == (list(events) == way)


@given(st.sampled_from(Step), st.sampled_from(Event))
def test_no_step_is_taken_twice_and_no_refusal_is_left(step: Step, event: Event) -> None:
    order = list(Step)
    following = advance(step, event)
    assert following is Step.REFUSED or order.index(following) == order.index(step) + 1
    if step in {Step.REFUSED, Step.GRANTED}:
        assert following is Step.REFUSED
    assert len(NEXT) == 4


@given(COOKIES)
def test_a_cookie_is_believed_only_when_it_stands_there_once_and_is_one_of_ours(headers: list[str]) -> None:
    found = read_cookie(headers, SESSION)
    stands = [
        pair.partition("=")[2].strip(" \t")
        for text in headers
        for pair in text.split(";")
        if pair.partition("=")[0].strip(" \t") == SESSION
    ]
    if isinstance(found, str):
        assert stands == [found]
        assert is_value(found)
    elif found is None:
        assert not stands
    else:
        assert found.reason in {"cookie_ambiguous", "login_required"}


@given(COOKIES)
def test_no_cookie_of_ours_goes_upstream_and_all_others_do(headers: list[str]) -> None:
    kept = without_ours(headers)
    assert read_cookie(kept, SESSION) is None
    assert not any(_is_ours(pair) for text in kept for pair in text.split(";"))
    assert all(sets_ours(pair) for text in headers for pair in text.split(";") if _is_ours(pair))
    others = [p.strip(" \t") for t in headers for p in t.split(";") if p.strip(" \t") and not _is_ours(p)]
    pairs = [pair.strip(" \t") for text in kept for pair in text.split(";")]
    assert [pair for pair in pairs if pair] == others


def _is_ours(pair: str) -> bool:
    return re.sub(r"[^!-~]", "", pair.partition("=")[0]).lower().startswith("__host-gateway-")


class Static:
    """An issuer's documents."""

    async def get(self, url: str, _headers: Any = None) -> HttpAnswer:
        if url.endswith("configuration"):
            return HttpAnswer(200, {}, json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}).encode())
        return HttpAnswer(200, {}, json.dumps({"keys": [KEY.jwk()]}).encode())

    async def post_form(self, _url: str, _form: Any, _headers: Any = None) -> HttpAnswer:
        return HttpAnswer(500, {}, b"")

    async def close(self) -> None:
        return


def signed(claims: Any) -> str:
    """pyjwt refuses to sign some claims; this signs anything."""
    head = json.dumps({"alg": "RS256", "typ": "JWT", "kid": KEY.kid}).encode()
    message = f"{b64url_encode(head)}.{b64url_encode(json.dumps(claims).encode())}"
    signature = jwt.PyJWS().get_algorithm_by_name("RS256").sign(message.encode(), KEY.private)
    return f"{message}.{b64url_encode(signature)}"


def checked(token: str) -> Any:
    async def check() -> Any:
        config = Issuer(issuer=ISSUER, profile="zitadel", audiences=("project",))
        directory = IssuerDirectory(config, Static(), lambda: NOW)
        expected = Expected(client_id="client", nonce="n", access_token="a", max_age_s=300)
        try:
            return await check_id_token(token, config, directory, expected, NOW)
        finally:
            await directory.close()

    return asyncio.run(check())


@given(st.dictionaries(st.sampled_from([*GOOD, "at_hash", "events", "nbf", "acr", "sid"]), JSON, max_size=3))
def test_an_id_token_is_good_only_with_what_must_be_in_it(changes: dict[str, Any]) -> None:
    claims = {name: value for name, value in (GOOD | changes).items() if value is not None}
    found = checked(signed(claims))
    if isinstance(found, Refusal):
        assert found.reason in REASONS
        return
    assert (found["iss"], found["nonce"], found["amr"] != []) == (ISSUER, "n", True)
    assert "client" in found["aud"]
    assert "events" not in found
    assert "at_hash" not in found
    assert NOW - 305 <= found["auth_time"] <= NOW + 5


@given(st.text(max_size=80) | st.lists(st.text("eyJ.abc_-=", max_size=20), max_size=4).map(".".join))
def test_whatever_stands_in_its_place_is_refused(token: str) -> None:
    found = checked(token)
    assert isinstance(found, Refusal)
    assert found.reason in REASONS
