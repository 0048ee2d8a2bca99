"""Device enrolment: a certificate signing request (PKCS #10) becomes a device certificate; the key stays there."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core import paths
from gateway.core.ports.pipeline import Enrolled, Enrolment
from gateway.core.reasons import Refusal
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.request import EndpointRequest
from gateway.endpoints.router import Endpoint
from gateway.replies.documents import json_reply
from gateway.replies.replies import Reply

_TOKEN_LIMIT = 512
_CSR_LIMIT = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentEndpoints:
    """Enrolment with a one-time token, and renewal by the device that the handshake proved.

    `enrolment` None: no issuing key is configured, so nobody can enrol here.
    """

    enrolment: Enrolment | None
    limiter: RateLimiter = field(default_factory=RateLimiter)

    def endpoints(self) -> list[Endpoint]:
        """The endpoints, for the router."""
        return [Endpoint("POST", paths.ENROL, self.post_enrol), Endpoint("POST", paths.RENEW, self.post_renew)]

    async def post_enrol(self, request: EndpointRequest) -> Reply:
        """The first certificate, for `token` and `csr`."""
        if self.enrolment is None:
            return request.problem("route_not_found")
        if not self.limiter.take(request.facts.client_ip):
            return request.problem("too_many_attempts")
        members = request.json_strings({"token": _TOKEN_LIMIT, "csr": _CSR_LIMIT})
        if isinstance(members, Refusal):
            return request.problem(members.reason)
        return _reply(request, await self.enrolment.enrol(members["token"], members["csr"]))

    async def post_renew(self, request: EndpointRequest) -> Reply:
        """The next certificate, for `csr`."""
        if self.enrolment is None:
            return request.problem("route_not_found")
        if request.device is None:
            return request.problem("device_required")
        if not self.limiter.take(request.facts.client_ip):
            return request.problem("too_many_attempts")
        members = request.json_strings({"csr": _CSR_LIMIT})
        if isinstance(members, Refusal):
            return request.problem(members.reason)
        return _reply(request, await self.enrolment.renew(request.device, members["csr"]))


def _reply(request: EndpointRequest, outcome: Enrolled | Refusal) -> Reply:
    if isinstance(outcome, Refusal):
        return request.problem(outcome.reason)
    return json_reply(
        {"device_id": outcome.device_id, "certificate": outcome.certificate_pem, "chain": outcome.chain_pem}, 201
    )
