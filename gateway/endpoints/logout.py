"""Where identity providers tell of ended logins: OpenID Connect back-channel logout, and Zitadel's webhooks.

Both are told by a machine that holds no session here, so neither asks for a device or a cookie: the signature is all
that counts. A body is read as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.core import paths as own
from gateway.core.reasons import Refusal
from gateway.identity.oidc.backchannel_logout import RETRY, LogoutReceiver
from gateway.identity.zitadel.webhooks import HookReceiver

_FORM = "application/x-www-form-urlencoded"
_FORM_LIMIT_BYTES = 32_768
_FIELDS = 16
_RETRY_S = "5"
_NO_STORE = {"cache-control": "no-store"}
_HOOK_STATUS = {"malformed_request": 400, "body_too_large": 413}


def routes(logouts: Mapping[str, LogoutReceiver], hooks: Mapping[str, HookReceiver]) -> list[Route]:
    """The routes, for receivers by the issuer's slug. What a receiver raises comes out of them."""

    async def post_logout(request: Request) -> Response:
        receiver = logouts.get(request.path_params["slug"])
        if receiver is None:
            return _refused(404, "no such issuer")
        token = await _logout_token(request)
        if token is None:
            return _refused(400, "exactly one logout_token in a form is needed")
        outcome = await receiver.receive(token)
        if not isinstance(outcome, Refusal):
            return Response(status_code=200, headers=_NO_STORE)
        return _refused(503 if outcome.reason in RETRY else 400, outcome.reason)

    async def post_hook(request: Request) -> Response:
        receiver = hooks.get(request.path_params["slug"])
        if receiver is None:
            return _refused(404, "no such issuer")
        outcome = await receiver.receive(request.headers.getlist("zitadel-signature"), await request.body())
        if not isinstance(outcome, Refusal):
            return Response(status_code=200, headers=_NO_STORE)
        status = 503 if outcome.reason in RETRY else _HOOK_STATUS.get(outcome.reason, 401)
        return _refused(status, outcome.reason)

    return [
        Route(own.BACKCHANNEL_LOGOUT + "{slug}", post_logout, methods=["POST"]),
        Route(own.ZITADEL_WEBHOOK + "{slug}", post_hook, methods=["POST"]),
    ]


async def _logout_token(request: Request) -> str | None:
    """The one logout token of a form; other fields may stand beside it (section 2.5 of the specification)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return None
    body = await request.body()
    if len(body) > _FORM_LIMIT_BYTES:
        return None
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        return None
    tokens = [value for name, value in fields if name == "logout_token"]
    return tokens[0] if len(tokens) == 1 else None


def _refused(status: int, why: str) -> Response:
    """A refusal as RFC 6749 section 5.2 words it; only one that is worth another try says when."""
    again = {"retry-after": _RETRY_S} if status == 503 else {}  # noqa: PLR2004
    error = "temporarily_unavailable" if again else "invalid_request"
    return JSONResponse({"error": error, "error_description": why}, status, {**_NO_STORE, **again})
