"""Fixed tokens with fixed outcomes: they hold the verifier to what it said before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.reasons import Refusal
from gateway.identity.bearer.access_tokens import TokenReader, TrustedIssuer
from gateway.identity.jose.jws import b64url_decode, published_keys
from gateway.identity.oidc.discovery import IssuerDirectory
from tests.support.issuer_world import StaticIssuer, facts, route, static_config
from tests.support.paths import VECTORS

TOKENS = json.loads((VECTORS / "tokens.json").read_text())


@pytest.mark.parametrize("case", TOKENS["tokens"], ids=lambda case: case["name"])
async def test_each_vector_has_its_outcome(case: dict[str, str]) -> None:
    config = static_config(issuer=TOKENS["issuer"], profile=case["profile"], audiences=(TOKENS["audience"],))
    directory = IssuerDirectory(config, StaticIssuer(keys=TOKENS["keys"]), lambda: TOKENS["now"])
    reader = TokenReader([TrustedIssuer(config, directory)], lambda: TOKENS["now"])
    found = await reader.read(facts(f"Bearer {case['token']}"), route(introspect_cache_s=None))
    assert (found.reason if isinstance(found, Refusal) else "token_ok") == case["expected"]
    await reader.close()


@pytest.mark.parametrize(
    ("jwk", "algorithm", "token"),
    [
        pytest.param(
            {
                "kty": "EC",
                "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            },
            "ES256",
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ij"
            "p0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            id="RFC 7515 appendix A.3",
        ),
        pytest.param(
            {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            "EdDSA",
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijc"
            "NR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            id="RFC 8037 appendix A.4",
        ),
    ],
)
def test_signatures_of_the_standards_verify(jwk: dict[str, Any], algorithm: str, token: str) -> None:
    (key,) = published_keys({"keys": [jwk]}, (algorithm,))
    message, _, tail = token.rpartition(".")
    signature = b64url_decode(tail)
    assert signature is not None
    assert key.verifies(algorithm, message.encode(), signature)
    assert not key.verifies(algorithm, message.encode() + b"A", signature)
    assert not key.verifies(algorithm, message.encode(), signature[:-1])
    assert not key.verifies("RS256", message.encode(), signature)
