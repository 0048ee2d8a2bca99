"""Proofs read and keys named: what is no proof is none, whatever it is signed with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.reasons import Refusal
from gateway.identity.jose import key_proof as keyproof
from gateway.identity.jose.key_proof import ClaimedProof, public_key, read_proof, thumbprint
from tests.support.proof_world import Holder, b64

HOLDER = Holder()
# RFC 7638 section 3.1.
RFC_7638 = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
    "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
    "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
    "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def read(text: str, **changes: Any) -> ClaimedProof | Refusal:
    return read_proof(text, **({"typ": "x+jwt", "algorithms": ("ES256",), "reason": "key_proof_invalid"} | changes))


def header(**changes: Any) -> dict[str, Any]:
    return {"alg": "ES256", "typ": "x+jwt", "jwk": HOLDER.jwk} | changes


def test_a_good_proof_is_read_and_verifies_with_its_key_alone() -> None:
    proof = read(HOLDER.sign(header(), {"jti": "1"}))
    assert isinstance(proof, ClaimedProof)
    assert (proof.algorithm, proof.jwk, proof.claims) == ("ES256", HOLDER.jwk, {"jti": "1"})
    assert proof.is_signed_by(HOLDER.jwk)
    assert not proof.is_signed_by(Holder().jwk)
    assert not proof.is_signed_by(HOLDER.private_jwk())
    assert not proof.is_signed_by(Holder("RS256").jwk)


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": "JWT"},
        {"typ": "X+JWT"},
        {"typ": None},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": ["ES256"]},
        {"alg": None},
        {"jwk": "key"},
        {"jwk": [HOLDER.jwk]},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/key"},
        {"x5c": ["AA"]},
        {"crit": ["exp"]},
    ],
)
def test_a_header_that_says_anything_else_is_refused(changes: dict[str, Any]) -> None:
    assert isinstance(read(HOLDER.sign(header(**changes), {})), Refusal)


def test_the_algorithm_is_looked_at_before_any_key_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(keyproof, "published_keys", made)
    assert isinstance(read(HOLDER.sign(header(alg="HS256"), {})), Refusal)
    assert isinstance(read(HOLDER.sign(header(), {})), ClaimedProof)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a.b",
        "..",
        HOLDER.sign(header(), {}) + ".x",
        HOLDER.sign(header(), {}) + "=",
        HOLDER.sign(header(), {}) + "\n",
        HOLDER.sign(header(), '{"jti":"1","jti":"2"}'),
        HOLDER.sign('{"alg":"ES256","alg":"ES256","typ":"x+jwt"}', {}),
        HOLDER.sign(header(), "[]"),
        HOLDER.sign("1", {}),
        HOLDER.sign(header(), {"a": "b" * 9_000}),
        "\u00e4.b.c",
    ],
    ids=range(13),
)
def test_what_is_no_compact_jws_of_json_objects_is_refused(text: str) -> None:
    assert isinstance(read(text), Refusal)


@given(st.text() | st.builds(".".join, st.lists(st.binary().map(b64), min_size=3, max_size=3)))
def test_whatever_comes_is_refused_and_raises_nothing(text: str) -> None:
    assert isinstance(read(text), Refusal)


def test_one_changed_byte_breaks_the_signature() -> None:
    good = HOLDER.sign(header(), {"jti": "1"})
    head, _, tail = good.split(".")
    proof = read(f"{head}.{b64({'jti': '2'})}.{tail}")
    assert isinstance(proof, ClaimedProof)
    assert not proof.is_signed_by(HOLDER.jwk)


def test_a_weak_rsa_key_verifies_nothing() -> None:
    weak = Holder("weak")
    proof = read(weak.sign(header(alg="RS256", jwk=weak.jwk), {}), algorithms=("RS256",))
    assert isinstance(proof, ClaimedProof)
    assert not proof.is_signed_by(weak.jwk)


# ---- thumbprints ----


def test_the_thumbprint_is_that_of_the_rfc() -> None:
    assert thumbprint(RFC_7638) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("kind", ["ES256", "EdDSA", "RS256"])
def test_a_thumbprint_is_of_the_key_and_of_nothing_beside_it(kind: str) -> None:
    jwk = Holder(kind).jwk
    assert thumbprint(jwk) == thumbprint({"use": "sig", "kid": "1", **dict(reversed(jwk.items()))})
    assert public_key({**jwk, "d": "AA"}) == public_key(jwk) == jwk


@pytest.mark.parametrize(
    "changes", [{"kty": "oct"}, {"kty": ["EC"]}, {"x": None}, {"x": 1}, {"x": "AA="}, {"x": "A"}, {"x": ""}, {"crv": 1}]
)
def test_what_is_no_key_in_its_one_spelling_has_no_thumbprint(changes: dict[str, Any]) -> None:
    assert thumbprint(json.loads(json.dumps(HOLDER.jwk | changes))) is None
