"""Zitadel's events: read from the Events API and from webhooks, what each one ends, and the cursor over them.

`sequence` counts for each aggregate, so it is no position: a cursor is a time, a small overlap before it, and the names
of the events already seen in that overlap.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from gateway.identity.jose.strict_json import read_object

OVERLAP_S = 5.0
_MAX_TEXT = 512
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_INSTANT = timedelta(microseconds=1)

# What ends everything the user in the aggregate has here.
_OF_USER = {
    "user.locked": "locked at the identity provider",
    "user.deactivated": "deactivated at the identity provider",
    "user.removed": "removed at the identity provider",
    "user.human.signed.out": "signed out at the identity provider",
    "user.human.password.changed": "the password was changed",
    "user.human.mfa.otp.removed": "a second factor was removed",
    "user.human.mfa.u2f.token.removed": "a second factor was removed",
    "user.human.mfa.otp.sms.removed": "a second factor was removed",
    "user.human.mfa.otp.email.removed": "a second factor was removed",
    "user.human.mfa.recoverycode.removed": "the recovery codes were removed",
    "user.human.passwordless.token.removed": "a passkey was removed",
}
_FINAL = frozenset({"user.locked", "user.deactivated", "user.removed"})
# What takes roles away. An added or reactivated grant only gives, so it ends nothing.
_OF_GRANT = {
    "user.grant.changed": "roles were changed",
    "user.grant.cascade.changed": "roles were changed",
    "user.grant.removed": "roles were removed",
    "user.grant.cascade.removed": "roles were removed",
    "user.grant.deactivated": "roles were removed",
}
GRANT_ADDED = "user.grant.added"
SESSION_ENDED = "session.terminated"
EVENT_TYPES = (SESSION_ENDED, *_OF_USER, GRANT_ADDED, *_OF_GRANT)


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `created_at` is a UTC time."""

    type: str
    aggregate_type: str
    aggregate_id: str
    sequence: int
    created_at: datetime
    payload: Mapping[str, Any] = _NOTHING

    @property
    def key(self) -> str:
        """Its name within the instance."""
        return f"{self.aggregate_type}|{self.aggregate_id}|{self.sequence}"


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, oldest first; `is_full` when more may follow at once."""

    events: tuple[Event, ...]
    is_full: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """What is to end, and why: one login session, everything of a subject, or of whom a grant belongs to.

    `is_final`: also what began since; nobody signs in to an account that is locked.
    """

    why: str
    sid: str | None = None
    subject: str | None = None
    grant: str | None = None
    is_final: bool = False


def ending_of(event: Event) -> Ending | None:
    """What an event ends; None for nothing."""
    if event.type == SESSION_ENDED:
        return Ending("the login session was ended", sid=event.aggregate_id)
    if event.type in _OF_USER:
        return Ending(_OF_USER[event.type], subject=event.aggregate_id, is_final=event.type in _FINAL)
    if event.type in _OF_GRANT:
        user = grantee(event)
        return Ending(_OF_GRANT[event.type], subject=user, grant=None if user else event.aggregate_id)
    return None


def grantee(event: Event) -> str | None:
    """The user a grant's event names; only the one that adds it is sure to."""
    user = event.payload.get("userId")
    return user if _is_text(user) else None


def event_of(entry: Mapping[str, Any]) -> Event | None:
    """An entry of the Events API; None for what cannot be read."""
    aggregate, kind = entry.get("aggregate"), entry.get("type")
    if not isinstance(aggregate, dict) or not isinstance(kind, dict):
        return None
    of = aggregate.get("type")
    return _event(
        kind.get("type"),
        of.get("type") if isinstance(of, dict) else of,
        aggregate.get("id"),
        entry.get("sequence", "0"),
        entry.get("creationDate"),
        entry.get("payload"),
    )


def hook_event(raw: bytes) -> Event | None:
    """The body of an event webhook, its payload an object or base64 of one; None for what cannot be read."""
    body = read_object(raw, depth=16)
    if body is None:
        return None
    payload = body.get("event_payload")
    if isinstance(payload, str) and payload:
        try:
            payload = read_object(b64decode(payload, validate=True), depth=16)
        except ValueError:
            return None
        if payload is None:
            return None
    elif payload is not None and not isinstance(payload, (str, dict)):
        return None
    return _event(
        body.get("event_type"),
        body.get("aggregateType"),
        body.get("aggregateID"),
        body.get("sequence", 0),
        body.get("created_at"),
        payload or None,
    )


def _event(kind: object, of: object, name: object, sequence: object, created: object, payload: object) -> Event | None:
    if not isinstance(kind, str) or not isinstance(of, str) or not isinstance(name, str):
        return None
    if not all(map(_is_text, (kind, of, name))) or not isinstance(created, str):
        return None
    if isinstance(sequence, bool) or not isinstance(sequence, (int, str)) or not str(sequence).isdecimal():
        return None
    try:
        at = datetime.fromisoformat(created)
        at = at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return Event(kind, of, name, int(sequence), at, payload if isinstance(payload, dict) else _NOTHING)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable()


@dataclass(frozen=True, slots=True)
class EventCursor:
    """How far the events have been read: everything up to `since`, and `seen` (keys) after it."""

    since: datetime
    seen: frozenset[str] = frozenset()

    def fresh(self, page: Sequence[Event]) -> list[Event]:
        """The events of a page that were not seen before, in order, each once."""
        found: dict[str, Event] = {}
        for event in page:
            if event.key not in self.seen:
                found.setdefault(event.key, event)
        return list(found.values())

    def after(self, page: Sequence[Event], *, is_full: bool) -> EventCursor:
        """The cursor once all of a page (oldest first) has been dealt with; `is_full` when more may follow at once.

        A full page is continued at its last instant, since that instant may go on beyond the page. Should one instant
        alone fill a page, it is left behind: the query cannot look into it.
        """
        if not page:
            return self
        last = page[-1].created_at
        since = max(self.since, last - (_INSTANT if is_full else timedelta(seconds=OVERLAP_S)))
        if is_full and not self.fresh(page):
            since = max(since, last)
        kept = self.seen if since == self.since else frozenset()
        return EventCursor(since, kept | {event.key for event in page if event.created_at > since})
