"""Device bound session credentials (W3C draft): a browser registers its key, and proves it again and again.

`gateway.identity.sessions.dbsc` decides. The browser itself asks here, not a page, and the proof is all that counts: it
may come without a cookie, an origin or a site. No answer is a 401, a 204 or empty, because the browser would end its
session; one that only means "later" is a 503.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core import paths
from gateway.core.reasons import Refusal
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.request import EndpointRequest
from gateway.endpoints.router import Endpoint
from gateway.identity.sessions.dbsc import CHALLENGE, Challenged, Dbsc, Instructions, Over
from gateway.replies.documents import json_reply
from gateway.replies.replies import Reply


def _limiter() -> RateLimiter:
    # A whole office behind one address refreshes every few minutes, each browser once for each service.
    return RateLimiter(burst=1_000, per_s=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class DbscEndpoints:
    """Registration and refresh of bound sessions, on every host. Both take from one bucket of attempts."""

    dbsc: Dbsc
    limiter: RateLimiter = field(default_factory=_limiter)

    def endpoints(self) -> list[Endpoint]:
        """The endpoints, for the router."""
        return [
            Endpoint("POST", paths.DBSC_REGISTER, self.post_register),
            Endpoint("POST", paths.DBSC_REFRESH, self.post_refresh),
        ]

    async def post_register(self, request: EndpointRequest) -> Reply:
        """The browser has made a key."""
        if not self.limiter.take(request.facts.client_ip):
            return _later(request)
        return _reply(request, await self.dbsc.register(request.facts))

    async def post_refresh(self, request: EndpointRequest) -> Reply:
        """The browser wants the next bound cookie."""
        if not self.limiter.take(request.facts.client_ip):
            return _later(request)
        return _reply(request, await self.dbsc.refresh(request.facts))


def _later(request: EndpointRequest) -> Reply:
    return request.problem("too_many_attempts").with_status(503)


def _reply(request: EndpointRequest, outcome: Instructions | Challenged | Over | Refusal) -> Reply:
    if isinstance(outcome, Instructions):
        return json_reply(outcome.document).with_fields(("set-cookie", outcome.set_cookie))
    if isinstance(outcome, Over):
        return json_reply(outcome.document)
    if isinstance(outcome, Challenged):
        document = {"error": "a proof of the session's key is needed"}
        return json_reply(document, 403).with_fields((CHALLENGE, outcome.header))
    return request.problem("key_proof_invalid")


async def with_registration_offer(dbsc: Dbsc | None, reply: Reply) -> Reply:
    """The reply; where it opens a session, it asks the browser for a key as well. None: sessions are not bound."""
    if dbsc is None:
        return reply
    fields = await dbsc.offer([value for name, value in reply.headers if name == "set-cookie"])
    return reply.with_fields(*fields)
