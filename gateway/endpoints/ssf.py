"""The own paths between machines: shared signals in and out, and what devices say of themselves.

None of them has a person or a cookie. A signal is believed by its signature, a poller by its token, a report by the key
of the connection's certificate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core import paths as own
from gateway.core.reasons import Refusal
from gateway.endpoints.app import Caller, Endpoint
from gateway.endpoints.rate_limit import RateLimiter
from gateway.identity.devices.posture import PostureReports
from gateway.identity.jose.strict_json import read_object
from gateway.identity.ssf.events import MEDIA_TYPE
from gateway.identity.ssf.receiver import SignalReceiver, error_of, is_retry
from gateway.identity.ssf.transmitter import SignalTransmitter
from gateway.replies.replies import Reply, deny

_PUSH, _POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"


def paths(
    origin: str,
    receivers: Mapping[str, SignalReceiver],
    transmitter: SignalTransmitter,
    streams: Sequence[str],
    reports: PostureReports,
    attempts: RateLimiter | None = None,
) -> list[Endpoint]:
    """The paths; `origin` is the gateway's own, `streams` the names of those who follow it."""
    bucket = RateLimiter(burst=200, per_s=20) if attempts is None else attempts

    async def post_push(caller: Caller, body: bytes, params: Mapping[str, str]) -> Reply:
        receiver = receivers.get(params["name"])
        if receiver is None or receiver.source.poll_url or caller.facts is None:
            return deny(caller.facts, ("route_not_found",), caller.decision_id)
        kind = (caller.facts.header("content-type") or "").partition(";")[0].strip().lower()
        if kind != MEDIA_TYPE or not body.isascii():
            return _json(400, {"err": "invalid_request", "description": "content type"})
        outcome = await receiver.receive(body.decode("ascii").strip())
        if not isinstance(outcome, Refusal):
            return Reply(202, _HEADERS, b"", "local")
        if is_retry(outcome):
            return deny(caller.facts, (outcome.reason,), caller.decision_id)
        return _json(400, error_of(outcome))

    async def post_poll(caller: Caller, body: bytes, params: Mapping[str, str]) -> Reply:
        if caller.facts is None or not bucket.take(caller.client_ip):
            return deny(caller.facts, ("too_many_attempts",), caller.decision_id)
        scheme, _, token = (caller.facts.header("authorization") or "").partition(" ")
        asked = read_object(body, members=2_000) if body else {}
        if asked is None:
            return deny(caller.facts, ("malformed_request",), caller.decision_id)
        answer = await transmitter.polled(params["name"], token if scheme.lower() == "bearer" else "", asked)
        return deny(caller.facts, ("login_required",), caller.decision_id) if answer is None else _json(200, answer)

    async def post_posture(caller: Caller, body: bytes, params: Mapping[str, str]) -> Reply:  # noqa: ARG001  (a path's)
        if caller.device is None or caller.facts is None:
            return deny(caller.facts, ("device_required",), caller.decision_id)
        if not body.isascii():
            return deny(caller.facts, ("malformed_request",), caller.decision_id)
        outcome = await reports.take(body.decode("ascii").strip(), caller.device, caller.facts.peer)
        if isinstance(outcome, Refusal):
            return deny(caller.facts, (outcome.reason,), caller.decision_id)
        return _json(200, {"posture": dict(outcome)})

    async def get_metadata(caller: Caller, body: bytes, params: Mapping[str, str]) -> Reply:  # noqa: ARG001  (a path's)
        if not streams or (caller.facts is not None and f"https://{caller.host}" != origin):
            return deny(caller.facts, ("route_not_found",), caller.decision_id)
        return _json(
            200,
            {
                "spec_version": "1_0",
                "issuer": origin,
                "jwks_uri": f"{origin}{own.JWKS}",
                "delivery_methods_supported": [_PUSH, _POLL],
                "default_subjects": "ALL",
            },
        )

    return [
        Endpoint("POST", own.SSF_PUSH + "{name}", post_push),
        Endpoint("POST", own.SSF_POLL + "{name}", post_poll),
        Endpoint("POST", own.POSTURE, post_posture),
        Endpoint("GET", own.SSF_CONFIGURATION, get_metadata),
    ]


_HEADERS = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"), ("x-gateway-reason", "local"))


def _json(status: int, document: Mapping[str, Any]) -> Reply:
    headers = (*_HEADERS, ("content-type", "application/json"))
    return Reply(status, headers, json.dumps(document, separators=(",", ":")).encode() + b"\n", "local")
