"""Stage 12, enforce_response, for any edge: what of an upstream's response goes out, and how its body is transformed.

Law: nothing goes out that was not enforced. A Refusal stands for the whole response: not a byte of it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.cookies import sets_ours
from gateway.core.header_names import HOP_BY_HOP, is_framing, is_ours
from gateway.core.reasons import Refusal
from gateway.obligations.body import OpenBody
from gateway.obligations.plan import NO_PLAN
from gateway.obligations.steps import ObligationFailed
from gateway.pipeline.bodies import obligation_context
from gateway.pipeline.headers import Forward

# Alt-Svc would send clients past the gateway.
# An upstream speaks neither for the gateway's port nor for the key of the gateway's session.
_DROPPED = HOP_BY_HOP | {"alt-svc", "secure-session-registration", "secure-session-challenge"}
_NO_TRAILERS = _DROPPED | {"set-cookie"}


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's head as it goes out. `body`: the transform that its body must go through, None for none.

    With a transform, Content-Length and whatever else described the body is gone from `headers`: the edge frames what
    the transform gives.
    """

    headers: list[tuple[str, str]]
    body: OpenBody | None = None


def enforce_response(
    forward: Forward, status: int, headers: Sequence[tuple[str, str]], *, has_body: bool
) -> ResponseHead | Refusal:
    """The head without this hop's headers and ours, obligations enforced. `headers` have lower-case names."""
    options = {option.strip().lower() for name, value in headers if name == "connection" for option in value.split(",")}
    end_to_end = [
        (name, value)
        for name, value in headers
        if name not in _DROPPED
        and name not in options
        and not is_ours(name)
        and not (name == "set-cookie" and sets_ours(value))
    ]
    fields = [*end_to_end, ("x-gateway-decision", forward.decision_id), *forward.added]
    plan = forward.plan
    if plan is NO_PLAN:
        return ResponseHead(fields)
    body: OpenBody | Refusal | None = None
    try:
        fields = plan.enforce_response(fields)
        if plan.response_bodies:
            context = obligation_context(forward)
            body = plan.open_response_body(forward.facts.method, status, end_to_end, context, has_body=has_body)
    except ObligationFailed as failure:
        return Refusal("obligation_failed", str(failure))
    return body if isinstance(body, Refusal) else ResponseHead(fields, body)


def enforce_trailers(forward: Forward, trailers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The response's trailers as they go out, without framing, ours and what an obligation removes."""
    fields = [item for item in trailers if not (item[0] in _NO_TRAILERS or is_framing(item[0]) or is_ours(item[0]))]
    if forward.plan is not NO_PLAN:
        try:
            allowed = forward.plan.enforce_response(fields)
        except ObligationFailed:
            return []
        fields = [field for field in fields if field in allowed]
    return fields
