from __future__ import annotations

import pytest

from gateway.config import Issuer
from gateway.core.reasons import Refusal
from gateway.identity.oidc import id_token
from gateway.identity.oidc.id_token import Expected

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("assurance", "empty_amr", "claims", "reason"),
    [
        ({}, "accept", {}, "amr_missing"),
        ({"missing_auth_time": "accept"}, "refuse", {}, "amr_missing"),
        ({"missing_auth_time": "accept"}, "accept", {}, ""),
        ({"missing_auth_time": "accept"}, "accept", {"auth_time": NOW + 60}, "token_not_yet_valid"),
        ({}, "accept", {"auth_time": NOW}, ""),
        ({}, "refuse", {"amr": ["pwd"]}, ""),
    ],
)
def test_a_sign_in_that_says_little_passes_only_where_that_is_configured(
    assurance: dict[str, str], empty_amr: str, claims: dict[str, object], reason: str
) -> None:
    config = Issuer.model_validate({"issuer": "https://id.example.com", "audiences": ["gw"], "assurance": assurance})
    refusal = id_token._about_the_person(claims, config, Expected("gw", empty_amr=empty_amr), NOW)
    assert (refusal.reason if isinstance(refusal, Refusal) else "") == reason
