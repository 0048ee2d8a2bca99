"""The body of a judged request under its obligations, for any edge: its transform, and the head that fits."""

from __future__ import annotations

from dataclasses import replace

from gateway.core.obligations import ObligationContext
from gateway.core.reasons import Refusal
from gateway.core.subject import subject_key
from gateway.obligations.body import OpenBody, without_description
from gateway.pipeline.headers import Forward


def obligation_context(forward: Forward) -> ObligationContext:
    """Whom the request is for, as body handlers see it."""
    identity = forward.identity
    if identity is None:
        return ObligationContext()
    return ObligationContext(subject_key(identity.issuer, identity.subject), identity.department)


def open_request_body(forward: Forward) -> OpenBody | Refusal | None:
    """The transform of the request's body, None when no obligation acts on it, or a refusal (nothing was sent)."""
    if not forward.plan.request_bodies:
        return None
    return forward.plan.open_request_body(forward.facts, obligation_context(forward))


def with_new_body(forward: Forward, body: OpenBody) -> Forward:
    """The request to send with a body that was transformed: without the digests of the body that came."""
    if not body.changed:
        return forward
    return replace(forward, headers=without_description(forward.headers, "request"))


def transform_whole(body: OpenBody, data: bytes) -> bytes | Refusal:
    """A body that is there as a whole, through its transform."""
    fed = body.feed(data)
    rest = body.finish()
    if isinstance(fed, Refusal) or isinstance(rest, Refusal):
        return fed if isinstance(fed, Refusal) else rest
    return fed + rest
