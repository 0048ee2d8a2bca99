"""The verdict `Forward`, and the headers of a judged request as they go upstream.

Law: the gateway's own headers and cookies are set here and nowhere else; every other copy of them is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from gateway.core.capabilities import NO_CAPABILITIES, EdgeCapabilities
from gateway.core.cookies import without_ours
from gateway.core.header_names import is_field, is_stripped
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.obligations.plan import Plan

_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_MEMBER = "".join(char for char in _PRINTABLE if char not in ',;"')


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
    """The request may go on: to `route`, with these end-to-end headers, under these obligations.

    `added` are fields of ours for the response. `capabilities` are those of the edge that has it.
    """

    decision_id: str
    facts: RequestFacts
    route: Route
    headers: list[tuple[str, str]]
    plan: Plan
    device: Device | None = None
    identity: Identity | None = None
    session: Session | None = None
    added: tuple[tuple[str, str], ...] = ()
    capabilities: EdgeCapabilities = NO_CAPABILITIES


def request_headers(
    facts: RequestFacts,
    route: Route,
    device: Device | None,
    identity: Identity | None,
    session: Session | None,
    decision_id: str,
    signer: Signer,
) -> list[tuple[str, str]]:
    """The end-to-end headers that were judged, then ours. Raises ValueError."""
    drop = {"expect"}
    # Beside a session, a token that nobody has looked at is none that the gateway vouches for.
    keeps_credential = route.keep_bearer and not (
        identity is not None and identity.kind == "session" and facts.brings_token
    )
    if identity is not None and not route.own_authorization and not keeps_credential:
        drop |= {"authorization", "dpop"}
    cookies = facts.header_values("cookie")
    if cookies:
        drop.add("cookie")
    headers = [item for item in facts.headers if item[0] not in drop]
    headers += [item for item in facts.asserted if item[0] in route.keep_headers]
    if route.strip_headers:
        headers[:] = [item for item in headers if not is_stripped(item[0], route.strip_headers)]
    headers += [("cookie", text) for text in without_ours(cookies)]
    headers += [
        ("x-forwarded-for", facts.client_ip),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", facts.authority or facts.host),
        ("x-gateway-decision", decision_id),
    ]
    if identity is not None:
        token = signer.sign(route.service, identity, device, session, decision_id, facts.method, facts.path)
        if not is_field("x-gateway-jwt-assertion", token) or not token:
            raise ValueError("not an assertion")
        headers.append(("x-gateway-jwt-assertion", token))
        if route.identity_headers:
            headers += _plain(identity, device)
    return headers


def _plain(identity: Identity, device: Device | None) -> list[tuple[str, str]]:
    values = {
        "x-gateway-subject": identity.subject,
        "x-gateway-issuer": identity.issuer,
        "x-gateway-email": identity.email,
        "x-gateway-name": identity.name,
        "x-gateway-device": device.id if device else "",
    }
    fields = [(name, quote(value, safe=_PRINTABLE)) for name, value in values.items() if value]
    if roles := ",".join(_member(role.key) for role in identity.roles if role.key):
        fields.append(("x-gateway-roles", roles))
    return fields


def _member(value: str) -> str:
    """A member of a list: what a reader of lists could cut it at, or cut off it, is percent-encoded."""
    text = quote(value, safe=_MEMBER)
    body = text.strip(" ")
    if not body:
        return "%20" * len(text)
    before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return f"{'%20' * before}{body}{'%20' * after}"
