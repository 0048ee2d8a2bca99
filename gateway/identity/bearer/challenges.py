"""What a client is told about tokens: WWW-Authenticate (RFC 6750, RFC 9449, RFC 9470), resource metadata (RFC 9728)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gateway.core.reasons import reason
from gateway.identity.bearer.dpop import ALGORITHMS

_UNQUOTABLE = re.compile(r"[^\x20-\x7e]")
_STEP_UP = frozenset({"mfa_required", "mfa_stale", "risk_high", "risk_medium"})
_NO_TOKEN = frozenset({"login_required"})
_DPOP = {"dpop_nonce_required": "use_dpop_nonce", "dpop_proof_invalid": "invalid_dpop_proof"}


def bearer_challenge(
    reason_code: str,
    resource_metadata_url: str,
    scope: str | None = None,
    max_age: int | None = None,
    acr_values: str | None = None,
    *,
    dpop: bool = False,
) -> str:
    """The value of WWW-Authenticate for a refusal with this reason; `max_age` is in seconds.

    Without a token it carries no error (RFC 6750 section 3.1). The error is for programs; people read the reply.
    `dpop`: the client used DPoP (RFC 9449 section 7.1); one that did not where its token is bound is told of it.
    """
    fields: dict[str, str] = {}
    error = _error(reason_code)
    if error is not None:
        fields["error"] = error
        fields["error_description"] = reason_code
    if scope is not None and error in {None, "insufficient_scope"}:
        fields["scope"] = scope
    if error == "insufficient_user_authentication":
        if acr_values is not None:
            fields["acr_values"] = acr_values
        if max_age is not None:
            fields["max_age"] = str(max(0, int(max_age)))
    algorithms = f"algs={_quoted(' '.join(ALGORITHMS))}"
    fields["resource_metadata"] = resource_metadata_url
    text = ", ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
    if dpop:
        return f"DPoP {text}, {algorithms}"
    return f"Bearer {text}, DPoP {algorithms}" if reason_code == "binding_mismatch" else f"Bearer {text}"


def resource_metadata(host: str, issuers: Iterable[str], scopes: Sequence[str] = ()) -> dict[str, Any]:
    """The protected resource metadata of the service published at `host` (RFC 9728 section 2)."""
    document: dict[str, Any] = {
        "resource": f"https://{host}",
        "authorization_servers": list(issuers),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
    }
    if scopes:
        document["scopes_supported"] = list(scopes)
    return document


def _error(code: str) -> str | None:
    """The error code (RFC 6750 section 3.1, RFC 9449 section 12.2, RFC 9470 section 3).

    None without a token, or when it is not to blame.
    """
    if code in _NO_TOKEN:
        return None
    if code in _DPOP:
        return _DPOP[code]
    if code in _STEP_UP:
        return "insufficient_user_authentication"
    return {400: "invalid_request", 401: "invalid_token", 403: "insufficient_scope"}.get(reason(code).status)


def _quoted(value: str) -> str:
    """A quoted-string (RFC 9110 section 5.6.4) of printable ASCII; what does not fit becomes "?"."""
    text = _UNQUOTABLE.sub("?", value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
