"""Security event tokens (RFC 8417) with the events of CAEP 1.0 and RISC that this gateway sends and understands.

A token is judged in three steps: its signature, its kind and audience, and then each event it carries. One that is
well formed but says nothing that concerns us is good, and does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.config import Issuer
from gateway.core.reasons import Refusal
from gateway.identity.oidc.discovery import ASKED_LATELY, IssuerDirectory
from gateway.identity.oidc.id_token import verified_claims

CAEP, RISC, SSF = (f"https://schemas.openid.net/secevent/{family}/event-type/" for family in ("caep", "risc", "ssf"))
TYP, MEDIA_TYPE = "secevent+jwt", "application/secevent+jwt"
SESSION_REVOKED, CREDENTIAL, COMPLIANCE, RISK, ASSURANCE = (
    "session-revoked",
    "credential-change",
    "device-compliance-change",
    "risk-level-change",
    "assurance-level-change",
)
_OLDEST_S, _AHEAD_S = 7 * 86_400.0, 60.0
_MAX_TEXT, _MAX_EVENTS = 512, 8
_JTI = re.compile(r"[\x21-\x7e]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class EventSubject:
    """Whom an event is about; "" where it does not say. `session` is a session's id as the sender knows it."""

    issuer: str = ""
    subject: str = ""
    session: str = ""
    device: str = ""

    def document(self) -> dict[str, Any]:
        """The subject identifier (RFC 9493), complex."""
        said: dict[str, Any] = {"format": "complex"}
        if self.subject:
            said["user"] = {"format": "iss_sub", "iss": self.issuer, "sub": self.subject}
        if self.session:
            said["session"] = {"format": "opaque", "id": self.session}
        if self.device:
            said["device"] = {"format": "opaque", "id": self.device}
        return said


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One event. `kind` is the last part of its URI, `at` when it happened in seconds since the epoch."""

    kind: str
    about: EventSubject
    at: float
    details: Mapping[str, Any] = field(default_factory=dict)

    def claims(self, issuer: str, audience: str, jti: str, now: float) -> dict[str, Any]:
        """The claims of its token: no `sub`, no `exp` (RFC 8417 section 2.2, SSF 1.0 section 4)."""
        event = {"event_timestamp": int(self.at), **self.details}
        return {
            "iss": issuer,
            "jti": jti,
            "iat": int(now),
            "aud": audience,
            "sub_id": self.about.document(),
            "events": {CAEP + self.kind: event},
        }


# Tells whoever follows this gateway of an event. Raises StoreDown.
type EventSink = Callable[[SecurityEvent], Awaitable[None]]

_CREDENTIALS = {"webauthn": "fido2-roaming", "totp": "app"}


async def tell_nobody(event: SecurityEvent) -> None:
    """Nobody follows."""


def credential_changed(about: EventSubject, kind: str, *, is_added: bool, at: float) -> SecurityEvent:
    """A second factor of this kind was added or removed (CAEP 1.0 section 3.3)."""
    said = {"credential_type": _CREDENTIALS.get(kind, kind), "change_type": "create" if is_added else "delete"}
    return SecurityEvent(CREDENTIAL, about, at, {**said, "initiating_entity": "user"})


def assurance_raised(about: EventSubject, amr: str, at: float) -> SecurityEvent:
    """Somebody proved a further factor (CAEP 1.0 section 3.4); the level is its `amr` value."""
    said = {"namespace": "RFC8176", "current_level": amr, "change_direction": "increase"}
    return SecurityEvent(ASSURANCE, about, at, {**said, "initiating_entity": "user"})


def risk_rose(about: EventSubject, why: str, at: float) -> SecurityEvent:
    """What somebody does has become so unusual that policy reacts (CAEP 1.0, risk level change)."""
    said = {"principal": "USER", "current_level": "HIGH", "risk_reason": why}
    return SecurityEvent(RISK, about, at, {**said, "initiating_entity": "policy"})


@dataclass(frozen=True, slots=True)
class Received:
    """What a token said: its events that are understood here. `state` is a verification event's."""

    jti: str
    events: tuple[SecurityEvent, ...]


async def verified_set(
    token: str, source: Issuer, directory: IssuerDirectory, people_of: str, now: float
) -> Received | Refusal:
    """What a token of this source says. `people_of`: the issuer of subjects that name none.

    Refusals: those of `verified_claims`, `token_kind_wrong`, `token_issuer_unknown`, `token_audience_wrong`,
    `token_malformed`, `token_expired` (an event older than a week: nobody can say what came after it).
    """
    verified = await verified_claims(token, source, directory)
    if isinstance(verified, Refusal):
        # It may be signed with a key that is newer than what is held: it is to come again, not to be lost.
        return Refusal("issuer_unavailable", ASKED_LATELY) if verified.detail == ASKED_LATELY else verified
    _, typ, claims = verified
    if typ.removeprefix("application/") != TYP:
        return Refusal("token_kind_wrong", "not a security event token")
    if claims.get("iss") != source.issuer:
        return Refusal("token_issuer_unknown", "another transmitter")
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(one in source.audiences for one in named if isinstance(one, str)):
        return Refusal("token_audience_wrong")
    jti, issued, events = claims.get("jti"), claims.get("iat"), claims.get("events")
    if not isinstance(jti, str) or not _JTI.match(jti):
        return Refusal("token_malformed", "jti")
    if isinstance(issued, bool) or not isinstance(issued, int | float) or not 0 < issued <= now + _AHEAD_S:
        return Refusal("token_malformed", "iat")
    if issued < now - _OLDEST_S:
        return Refusal("token_expired", "iat")
    # An access token or a logout token with an `events` member is none of these (RFC 8417 section 4).
    if "exp" in claims or "sub" in claims or "nonce" in claims:
        return Refusal("token_kind_wrong", "a claim that a security event token does not have")
    if not isinstance(events, dict) or not 0 < len(events) <= _MAX_EVENTS:
        return Refusal("token_malformed", "events")
    about = _about(claims.get("sub_id"), people_of)
    found: list[SecurityEvent] = []
    for uri, details in events.items():
        if not isinstance(details, dict):
            return Refusal("token_malformed", "an event")
        kind = uri.rpartition("/")[2] if uri.startswith((CAEP, RISC)) else ""
        if kind and about is None:
            return Refusal("token_malformed", "sub_id")
        if kind and about is not None:
            found.append(SecurityEvent(kind, about, _moment(details, issued), details))
    return Received(jti, tuple(found))


def _moment(details: Mapping[str, Any], issued: float) -> float:
    at = details.get("event_timestamp", issued)
    return float(at) if isinstance(at, int | float) and not isinstance(at, bool) and 0 < at <= issued else float(issued)


def _about(said: object, people_of: str) -> EventSubject | None:
    """A subject identifier: iss_sub, opaque (a session), or complex with a user, session and device; None for none."""
    if not isinstance(said, dict):
        return None
    kind = said.get("format")
    if kind == "iss_sub":
        user = _user(said, people_of)
        return None if user is None else EventSubject(*user)
    if kind == "opaque":
        return EventSubject(people_of, session=name) if (name := _text(said.get("id"))) else None
    if kind != "complex":
        return None
    issuer, subject = people_of, ""
    if "user" in said:
        found = _user(said["user"], people_of)
        if found is None:
            return None
        issuer, subject = found
    names = {}
    for member in ("session", "device"):
        part = said.get(member)
        if part is not None:
            name = _text(part.get("id")) if isinstance(part, dict) and part.get("format") == "opaque" else ""
            if not name:
                return None
            names[member] = name
    return (
        EventSubject(issuer, subject, names.get("session", ""), names.get("device", "")) if subject or names else None
    )


def _user(said: object, people_of: str) -> tuple[str, str] | None:
    if not isinstance(said, dict):
        return None
    kind = said.get("format")
    issuer, subject = _text(said.get("iss", people_of)), _text(said.get("sub" if kind == "iss_sub" else "id"))
    # Whoever speaks of somebody else's people is not believed: an issuer's people are its own, or those configured.
    if kind not in {"iss_sub", "opaque"} or not subject or issuer != people_of:
        return None
    return issuer, subject


def _text(value: object) -> str:
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable() else ""
