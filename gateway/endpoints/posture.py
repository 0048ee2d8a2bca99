"""Device posture: a device reports its own state, signed with the key of the connection's certificate."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core import paths
from gateway.core.reasons import Refusal
from gateway.endpoints.request import EndpointRequest
from gateway.endpoints.router import Endpoint
from gateway.identity.devices.posture import PostureReports
from gateway.replies.documents import json_reply
from gateway.replies.replies import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class PostureEndpoints:
    """Takes posture reports."""

    reports: PostureReports

    def endpoints(self) -> list[Endpoint]:
        """The endpoints, for the router."""
        return [Endpoint("POST", paths.POSTURE, self.post_posture)]

    async def post_posture(self, request: EndpointRequest) -> Reply:
        """The posture as it now counts."""
        if request.device is None:
            return request.refuse(Refusal("device_required"))
        if not request.body.isascii():
            return request.refuse(Refusal("malformed_request"))
        outcome = await self.reports.take(request.body.decode("ascii").strip(), request.device, request.facts.peer)
        return request.refuse(outcome) if isinstance(outcome, Refusal) else json_reply({"posture": dict(outcome)})
