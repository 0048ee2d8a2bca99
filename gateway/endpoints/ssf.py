"""Shared Signals Framework: security event tokens pushed to the gateway (RFC 8935) and polled from it (RFC 8936).

No endpoint here has a person or a cookie. An event is believed by its signature, a poller by its token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.core import paths
from gateway.core.reasons import Refusal
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.request import EndpointRequest
from gateway.endpoints.router import Endpoint
from gateway.identity.jose.strict_json import read_object
from gateway.identity.ssf.events import MEDIA_TYPE
from gateway.identity.ssf.receiver import SignalReceiver, error_of, is_retry
from gateway.identity.ssf.transmitter import SignalTransmitter
from gateway.replies.documents import empty_reply, json_reply
from gateway.replies.replies import Reply

_PUSH, _POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"


def _limiter() -> RateLimiter:
    return RateLimiter(burst=200, per_s=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class SsfEndpoints:
    """Receives from the transmitters in `receivers`, and serves `streams`, the names of the gateway's own receivers.

    `origin` is the gateway's own web origin.
    """

    origin: str
    receivers: Mapping[str, SignalReceiver]
    transmitter: SignalTransmitter
    streams: Sequence[str]
    limiter: RateLimiter = field(default_factory=_limiter)

    def endpoints(self) -> list[Endpoint]:
        """The endpoints, for the router."""
        return [
            Endpoint("POST", paths.SSF_PUSH, self.post_push),
            Endpoint("POST", paths.SSF_POLL, self.post_poll),
            Endpoint("GET", paths.SSF_CONFIGURATION, self.get_configuration),
        ]

    async def post_push(self, request: EndpointRequest) -> Reply:
        """One security event token (RFC 8935 section 2)."""
        receiver = self.receivers.get(request.slug)
        if receiver is None or receiver.source.poll_url:
            return request.refuse(Refusal("route_not_found"))
        if request.media_type != MEDIA_TYPE or not request.body.isascii():
            return json_reply({"err": "invalid_request", "description": "content type"}, 400)
        outcome = await receiver.receive(request.body.decode("ascii").strip())
        if not isinstance(outcome, Refusal):
            return empty_reply(202)
        return request.refuse(outcome) if is_retry(outcome) else json_reply(error_of(outcome), 400)

    async def post_poll(self, request: EndpointRequest) -> Reply:
        """The events that wait for a receiver (RFC 8936 section 2)."""
        if not self.limiter.take(request.facts.client_ip):
            return request.refuse(Refusal("too_many_attempts"))
        scheme, _, token = (request.facts.header("authorization") or "").partition(" ")
        query = read_object(request.body, members=2_000) if request.body else {}
        if query is None:
            return request.refuse(Refusal("malformed_request"))
        document = await self.transmitter.polled(request.slug, token if scheme.lower() == "bearer" else "", query)
        return request.refuse(Refusal("login_required")) if document is None else json_reply(document)

    async def get_configuration(self, request: EndpointRequest) -> Reply:
        """The transmitter's configuration metadata (SSF 1.0 section 7), on the gateway's own origin."""
        if not self.streams or f"https://{request.host}" != self.origin:
            return request.refuse(Refusal("route_not_found"))
        return json_reply(
            {
                "spec_version": "1_0",
                "issuer": self.origin,
                "jwks_uri": f"{self.origin}{paths.JWKS}",
                "delivery_methods_supported": [_PUSH, _POLL],
                "default_subjects": "ALL",
            }
        )
