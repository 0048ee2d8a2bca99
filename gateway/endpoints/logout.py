"""Back channels of identity providers: OpenID Connect back-channel logout, and Zitadel's webhooks.

The sender is a machine without a session here, so neither asks for a device or a cookie: the signature is all that
counts. A body is read as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from gateway.core import paths
from gateway.core.reasons import Refusal
from gateway.endpoints.request import FORM, EndpointRequest
from gateway.endpoints.router import Endpoint
from gateway.identity.oidc.backchannel_logout import RETRY, LogoutReceiver
from gateway.identity.zitadel.webhooks import HookReceiver
from gateway.replies.documents import empty_reply, oauth_error_reply
from gateway.replies.replies import Reply

_FORM_LIMIT_BYTES = 32_768
_FIELDS = 16
_SIGNATURES = ("zitadel-signature", "x-zitadel-signature")
_WEBHOOK_STATUS = {"malformed_request": 400, "body_too_large": 413}
_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutEndpoints:
    """Receivers by the issuer's slug."""

    logouts: Mapping[str, LogoutReceiver]
    webhooks: Mapping[str, HookReceiver]

    def endpoints(self) -> list[Endpoint]:
        """The endpoints, for the router. The receivers bound the bodies."""
        return [
            Endpoint("POST", paths.BACKCHANNEL_LOGOUT, self.post_logout, body_limit_bytes=None),
            Endpoint("POST", paths.ZITADEL_WEBHOOK, self.post_webhook, body_limit_bytes=None),
        ]

    async def post_logout(self, request: EndpointRequest) -> Reply:
        """One logout token (OpenID Connect Back-Channel Logout 1.0 section 2.5)."""
        receiver = self.logouts.get(request.slug)
        if receiver is None:
            return oauth_error_reply(404, "no such issuer")
        token = _logout_token(request)
        if token is None:
            return oauth_error_reply(400, "exactly one logout_token in a form is needed")
        outcome = await receiver.receive(token)
        if not isinstance(outcome, Refusal):
            return empty_reply(200)
        return oauth_error_reply(_UNAVAILABLE if outcome.reason in RETRY else 400, outcome.reason)

    async def post_webhook(self, request: EndpointRequest) -> Reply:
        """Events of Zitadel, signed with a webhook key."""
        receiver = self.webhooks.get(request.slug)
        if receiver is None:
            return oauth_error_reply(404, "no such issuer")
        # Zitadel's documentation and its source spell the header differently; either alone is the signature.
        signatures = [value for name in _SIGNATURES for value in request.facts.header_values(name)]
        outcome = await receiver.receive(signatures, request.body)
        if not isinstance(outcome, Refusal):
            return empty_reply(200)
        status = _UNAVAILABLE if outcome.reason in RETRY else _WEBHOOK_STATUS.get(outcome.reason, 401)
        return oauth_error_reply(status, outcome.reason)


def _logout_token(request: EndpointRequest) -> str | None:
    """The one logout token of a form; other fields may stand beside it (section 2.5)."""
    if request.media_type != FORM or len(request.body) > _FORM_LIMIT_BYTES:
        return None
    try:
        fields = parse_qsl(request.body.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        return None
    tokens = [value for name, value in fields if name == "logout_token"]
    return tokens[0] if len(tokens) == 1 else None
