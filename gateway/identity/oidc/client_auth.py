"""How the gateway proves to an issuer who it is: client_secret_basic and private_key_jwt (RFC 6749, RFC 7523).

A credential's repr shows nothing of its secret. The values come already read; a constructor that cannot use what it is
given raises ValueError, without quoting it.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import quote_plus

from gateway.identity.jose.jws import SigningKey
from gateway.identity.jose.strict_json import read_object

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_LIFE_S = 60
# Zitadel: refuses an assertion that was issued in its future, and allows one second.
_BACKDATED_S = 1


class ClientCredential(Protocol):
    """One client's way to authenticate at an issuer."""

    def authenticate(self, issuer: str, now: float) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """(headers, form fields) to add to one request; `now` is seconds since the epoch."""


class BasicCredential:
    """`client_secret_basic` (RFC 6749 section 2.3.1): both halves are form-urlencoded first."""

    def __init__(self, client_id: str, secret: bytes) -> None:
        text = secret.strip().decode("utf-8", errors="replace")
        if not client_id or not text or "\ufffd" in text:
            raise ValueError("the client secret is empty or no text")
        pair = f"{quote_plus(client_id)}:{quote_plus(text)}"
        self._headers = {"authorization": "Basic " + b64encode(pair.encode("ascii")).decode("ascii")}

    def __repr__(self) -> str:
        return "BasicCredential()"

    def authenticate(self, issuer: str, now: float) -> tuple[Mapping[str, str], Mapping[str, str]]:  # noqa: ARG002  (port)
        """The Authorization header; no form field."""
        return self._headers, {}


class KeyCredential:
    """`private_key_jwt` (RFC 7523 section 2.2) with an API application's key file as Zitadel hands it out.

    `file` is the JSON `{"type":"application","keyId","key","clientId",...}`, `key` a PEM of an RSA key.
    """

    def __init__(self, client_id: str, file: bytes) -> None:
        document = read_object(file) or {}
        key_id, pem = document.get("keyId"), document.get("key")
        if not isinstance(key_id, str) or not isinstance(pem, str) or not key_id:
            raise ValueError("the key file is not a JSON object with keyId and key")
        if document.get("type", "application") != "application" or document.get("clientId", client_id) != client_id:
            raise ValueError("the key file belongs to another client")
        self._client_id = client_id
        self._key = SigningKey(pem.encode("utf-8"), "RS256", key_id)

    def __repr__(self) -> str:
        return "KeyCredential()"

    def authenticate(self, issuer: str, now: float) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """A fresh assertion as form fields; no header."""
        issued_at = int(now) - _BACKDATED_S
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": issuer,
            "iat": issued_at,
            "exp": issued_at + _ASSERTION_LIFE_S,
            "jti": secrets.token_urlsafe(16),
        }
        return {}, {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": self._key.sign(claims)}
