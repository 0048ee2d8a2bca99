from __future__ import annotations

import pytest

from gateway.core.reasons import REASONS
from gateway.identity.bearer.challenges import bearer_challenge, resource_metadata

URL = "https://staff.example.com/.well-known/oauth-protected-resource"


def test_without_a_token_the_challenge_is_bare() -> None:
    assert bearer_challenge("login_required", URL) == f'Bearer resource_metadata="{URL}"'
    assert bearer_challenge("login_required", URL, scope="openid") == (
        f'Bearer scope="openid", resource_metadata="{URL}"'
    )


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("token_expired", "invalid_token"),
        ("token_inactive", "invalid_token"),
        ("session_revoked", "invalid_token"),
        ("binding_mismatch", "invalid_token"),
        ("token_ambiguous", "invalid_request"),
        ("role_missing", "insufficient_scope"),
        ("default_deny", "insufficient_scope"),
        ("a_rule_of_the_author", "insufficient_scope"),
        ("mfa_required", "insufficient_user_authentication"),
        ("mfa_stale", "insufficient_user_authentication"),
    ],
)
def test_each_refusal_has_its_error(code: str, error: str) -> None:
    assert f'error="{error}"' in bearer_challenge(code, URL)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("dpop_nonce_required", "use_dpop_nonce"),
        ("dpop_proof_invalid", "invalid_dpop_proof"),
        ("binding_mismatch", "invalid_token"),
        ("token_expired", "invalid_token"),
    ],
)
def test_a_client_that_speaks_dpop_is_answered_in_its_scheme(code: str, error: str) -> None:
    text = bearer_challenge(code, URL, dpop=True)
    assert text.startswith(f'DPoP error="{error}", ')
    assert text.endswith(f'resource_metadata="{URL}", algs="ES256 EdDSA RS256"')


def test_whoever_brings_a_bound_token_as_a_bearer_token_is_told_of_dpop() -> None:
    text = bearer_challenge("binding_mismatch", URL)
    assert text.startswith('Bearer error="invalid_token", ')
    assert text.endswith(', DPoP algs="ES256 EdDSA RS256"')
    assert "DPoP" not in bearer_challenge("token_expired", URL)


def test_a_failure_of_ours_is_no_error_of_the_token() -> None:
    assert "error=" not in bearer_challenge("issuer_unavailable", URL)


def test_a_step_up_says_what_it_wants() -> None:
    assert bearer_challenge("mfa_stale", URL, max_age=300, acr_values="mfa") == (
        'Bearer error="insufficient_user_authentication", error_description="mfa_stale", acr_values="mfa", '
        f'max_age="300", resource_metadata="{URL}"'
    )


@pytest.mark.parametrize("code", sorted(REASONS))
def test_no_value_breaks_out_of_its_quotes(code: str) -> None:
    text = bearer_challenge(code, 'https://x"\r\nset-cookie: a=b\\', scope='a"b\u00e9', acr_values='"', max_age=-1)
    assert text.isprintable()
    assert text.isascii()
    assert text.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 0


def test_the_metadata_name_the_service_and_its_issuers() -> None:
    assert resource_metadata("staff.example.com", ["https://id.example.com"]) == {
        "resource": "https://staff.example.com",
        "authorization_servers": ["https://id.example.com"],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA", "RS256"],
    }
    assert resource_metadata("a.example", (), scopes=["openid"])["scopes_supported"] == ["openid"]
