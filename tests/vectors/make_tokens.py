"""Makes tokens.json anew: `python tests/vectors/make_tokens.py`. The private keys are thrown away."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import jwt

from gateway.demo.idp.token_issuer import Key

NOW = 1_800_000_000
ISSUER = "https://id.example.com"
PROJECT = "259254020357488642"
CLIENT = "243864426485212395"


def part(value: dict[str, Any] | str) -> str:
    raw = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return urlsafe_b64encode(raw.encode()).rstrip(b"=").decode()


def main() -> None:
    key, other = Key(), Key()

    def token(header: dict[str, Any] | str, claims: dict[str, Any] | str, signer: Key = key) -> str:
        message = f"{part(header)}.{part(claims)}"
        signature = jwt.PyJWS().get_algorithm_by_name("RS256").sign(message.encode(), signer.private)
        return f"{message}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    head = {"alg": "RS256", "kid": key.kid, "typ": "JWT"}
    roles = {"admin": {"223281939119866113": "acme.example"}, "staff": {"223281939119866113": "acme.example"}}
    claims = {
        "iss": ISSUER,
        "sub": "164849494297477377",
        "aud": [CLIENT, PROJECT],
        "exp": NOW + 3600,
        "iat": NOW,
        "nbf": NOW,
        "client_id": CLIENT,
        "jti": "V2_297364818980034004-at_297364818980034005",
        f"urn:zitadel:iam:org:project:{PROJECT}:roles": roles,
    }
    at, good = head | {"typ": "at+jwt"}, token(head, claims)
    body, tail = good.split(".")[1:]

    def without(name: str) -> dict[str, Any]:
        return {key: value for key, value in claims.items() if key != name}

    rows: list[tuple[str, str, str, str]] = [
        ("zitadel access token", "zitadel", good, "token_ok"),
        ("RFC 9068 access token", "strict", token(at, claims), "token_ok"),
        ("RFC 9068 access token, long typ", "strict", token(head | {"typ": "application/at+jwt"}, claims), "token_ok"),
        ("typ JWT where RFC 9068 is wanted", "strict", good, "token_kind_wrong"),
        ("RFC 9068 without jti", "strict", token(at, without("jti")), "token_malformed"),
        ("RFC 9068 without client_id", "strict", token(at, without("client_id")), "token_malformed"),
        ("id token", "zitadel", token(head, without("jti") | {"nonce": "n", "at_hash": "h"}), "token_kind_wrong"),
        ("logout token", "zitadel", token(head, claims | {"events": {}}), "token_kind_wrong"),
        ("alg none", "zitadel", f"{part(head | {'alg': 'none'})}.{body}.", "token_algorithm_refused"),
        ("alg HS256", "zitadel", f"{part(head | {'alg': 'HS256'})}.{body}.{tail}", "token_algorithm_refused"),
        ("alg that is not pinned", "zitadel", token(head | {"alg": "PS256"}, claims), "token_algorithm_refused"),
        ("jwk in the header", "zitadel", token(head | {"jwk": key.jwk()}, claims), "token_algorithm_refused"),
        ("jku in the header", "zitadel", token(head | {"jku": ISSUER}, claims), "token_algorithm_refused"),
        ("crit", "zitadel", token(head | {"crit": ["x"], "x": 1}, claims), "token_algorithm_refused"),
        ("unknown kid", "zitadel", token(head | {"kid": "1"}, claims), "token_key_unknown"),
        ("key of another", "zitadel", token(head, claims, other), "token_signature_invalid"),
        ("changed claims", "zitadel", f"{part(head)}.{part(claims | {'sub': '1'})}.{tail}", "token_signature_invalid"),
        ("other issuer", "zitadel", token(head, claims | {"iss": ISSUER + "/"}), "token_issuer_unknown"),
        ("other audience", "zitadel", token(head, claims | {"aud": [CLIENT]}), "token_audience_wrong"),
        ("expired", "zitadel", token(head, claims | {"exp": NOW - 60}), "token_expired"),
        ("not yet valid", "zitadel", token(head, claims | {"nbf": NOW + 60}), "token_not_yet_valid"),
        ("exp true", "zitadel", token(head, claims | {"exp": True}), "token_malformed"),
        ("duplicate claim", "zitadel", token(head, json.dumps(claims)[:-1] + ',"sub":"1"}'), "token_malformed"),
        ("padded", "zitadel", good + "==", "token_malformed"),
    ]
    document = {
        "now": NOW,
        "issuer": ISSUER,
        "audience": PROJECT,
        "keys": [key.jwk()],
        "tokens": [dict(zip(("name", "profile", "token", "expected"), row, strict=True)) for row in rows],
    }
    Path(__file__).with_name("tokens.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
