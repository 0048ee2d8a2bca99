"""What goes on: the headers of a judged request as they go upstream and of its answer as they come back.

Law: the gateway's own headers and cookies are set here and nowhere else; every other copy of them is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from gateway.core.cookies import sets_ours, without_ours
from gateway.core.header_names import HOP_BY_HOP, is_field, is_framing, is_ours
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.obligations.plan import NO_PLAN, ObligationFailed, Plan

# Alt-Svc would send clients past the gateway.
# An upstream speaks neither for the gateway's port nor for the key of the gateway's session.
_DROPPED_FROM_ANSWERS = HOP_BY_HOP | {"alt-svc", "secure-session-registration", "secure-session-challenge"}
_NO_TRAILERS = _DROPPED_FROM_ANSWERS | {"set-cookie"}
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class Signer(Protocol):
    """Makes the signed identity that goes upstream."""

    def sign(
        self,
        audience: str,
        identity: Identity,
        device: Device | None,
        session: Session | None,
        decision_id: str,
        method: str,
        path: str,
    ) -> str:
        """A compact JWT. Raises when no key is there."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The request may go on: to `route`, with these end-to-end headers, under these obligations."""

    decision_id: str
    facts: RequestFacts
    route: Route
    headers: list[tuple[str, str]]
    plan: Plan
    device: Device | None = None
    identity: Identity | None = None
    session: Session | None = None
    added: tuple[tuple[str, str], ...] = ()  # fields of ours for the answer


def request_headers(forward: Forward, signer: Signer) -> list[tuple[str, str]]:
    """Fill in and return `forward.headers`: the end-to-end headers that were judged, then ours. Raises ValueError."""
    facts, route, identity, device = forward.facts, forward.route, forward.identity, forward.device
    drop = {"expect"}
    if identity is not None and not route.keep_bearer:
        drop |= {"authorization", "dpop"}
    cookies = facts.header_values("cookie")
    if cookies:
        drop.add("cookie")
    headers = forward.headers
    headers += [item for item in facts.headers if item[0] not in drop]
    headers += [("cookie", text) for text in without_ours(cookies)]
    headers += [
        ("x-forwarded-for", facts.client_ip),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", facts.authority or facts.host),
        ("x-gateway-decision", forward.decision_id),
    ]
    if identity is not None:
        token = signer.sign(
            route.service, identity, device, forward.session, forward.decision_id, facts.method, facts.path
        )
        if not is_field("x-gateway-jwt-assertion", token) or not token:
            raise ValueError("not an assertion")
        headers.append(("x-gateway-jwt-assertion", token))
        if route.identity_headers:
            headers += _plain(identity, device)
    return headers


def _plain(identity: Identity, device: Device | None) -> list[tuple[str, str]]:
    said = {
        "x-gateway-subject": identity.subject,
        "x-gateway-issuer": identity.issuer,
        "x-gateway-email": identity.email,
        "x-gateway-name": identity.name,
        "x-gateway-roles": ",".join(role.key for role in identity.roles),
        "x-gateway-device": device.id if device else "",
    }
    return [(name, quote(value, safe=_PRINTABLE)) for name, value in said.items() if value]


def answer_headers(forward: Forward, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of the answer as they go out: this hop's and ours removed, obligations enforced.

    Raises ObligationFailed.
    """
    options = {option.strip().lower() for name, value in headers if name == "connection" for option in value.split(",")}
    kept = [
        (name, value)
        for name, value in headers
        if name not in _DROPPED_FROM_ANSWERS
        and name not in options
        and not is_ours(name)
        and not (name == "set-cookie" and sets_ours(value))
    ]
    kept.append(("x-gateway-decision", forward.decision_id))
    kept += forward.added
    if forward.plan is not NO_PLAN:
        forward.plan.enforce_response(kept)
    return kept


def answer_trailers(forward: Forward, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The trailers of the answer as they go out, without framing, ours and what an obligation removes."""
    kept = [(name, value) for name, value in headers if not (name in _NO_TRAILERS or is_framing(name) or is_ours(name))]
    if forward.plan is not NO_PLAN:
        allowed = list(kept)
        try:
            forward.plan.enforce_response(allowed)
        except ObligationFailed:
            return []
        kept = [item for item in kept if item in allowed]
    return kept
