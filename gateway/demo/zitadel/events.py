"""The event log of the emulated instance: what happened, in order, and the Events API over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.demo.idp.accounts import ORG
from gateway.demo.zitadel.wire import Call, Endpoint, moment, without_zero

# Zitadel's source, internal/repository/{user,usergrant,session}: a part of what an instance lists as its event types.
EVENT_TYPES = (
    *("session.added", "session.user.checked", "session.terminated", "user.locked", "user.unlocked"),
    *("user.deactivated", "user.reactivated", "user.removed", "user.human.signed.out"),
    *("user.human.password.changed", "user.human.mfa.otp.removed", "user.human.mfa.u2f.token.removed"),
    *("user.human.mfa.otp.sms.removed", "user.human.mfa.otp.email.removed", "user.human.mfa.recoverycode.removed"),
    *("user.human.passwordless.token.removed", "user.grant.added", "user.grant.changed", "user.grant.cascade.changed"),
    *("user.grant.removed", "user.grant.cascade.removed", "user.grant.deactivated", "user.grant.reactivated"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened. `sequence` counts for its aggregate alone; `at` is seconds since the epoch."""

    kind: str
    aggregate_type: str
    aggregate_id: str
    sequence: int
    at: float
    editor: str
    payload: Mapping[str, Any] | None


class EventLog:
    """Append and search. `listeners` hear of every event, in order."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.events: list[Event] = []
        self.listeners: list[Callable[[Event], None]] = []
        self._clock = clock
        self._sequences: Counter[tuple[str, str]] = Counter()
        self._last = 0.0

    def add(self, kind: str, of: str, name: str, payload: Mapping[str, Any] | None = None, editor: str = "") -> Event:
        """Zitadel C14: `sequence` counts per aggregate, so it is no global cursor."""
        self._sequences[of, name] += 1
        # Distinct in microseconds, so that "strictly after" loses nothing.
        self._last = max(self._clock(), self._last + 2e-6)
        event = Event(kind, of, name, self._sequences[of, name], self._last, editor, payload)
        self.events.append(event)
        for listener in self.listeners:
            listener(event)
        return event

    def sequence(self, of: str, name: str) -> int:
        """The newest sequence of an aggregate."""
        return self._sequences[of, name]

    def endpoints(self) -> list[Endpoint]:
        """Zitadel C14: POST /admin/v1/events/_search needs IAM_OWNER_VIEWER."""
        return [
            Endpoint("POST", "/admin/v1/events/_search", "read", self._search),
            Endpoint("POST", "/admin/v1/events/types/_search", "read", _types),
        ]

    def _search(self, call: Call) -> dict[str, Any]:
        body = call.body
        between = body.get("range", {})
        # Zitadel C14: `from` is strictly after.
        since = _seconds(body.get("from") or between.get("since"))
        until = _seconds(between.get("until"), float("inf"))
        kinds, types = body.get("eventTypes") or (), body.get("aggregateTypes") or ()
        events = [
            event
            for event in self.events
            if round(event.at, 6) > since
            and event.at <= until
            and (not kinds or event.kind in kinds)
            and (not types or event.aggregate_type in types)
            and body.get("aggregateId", "") in {"", event.aggregate_id}
            and event.sequence > int(body.get("sequence") or 0)
        ]
        ordered = events if body.get("asc") else events[::-1]
        return without_zero({"events": [_protojson(event) for event in ordered[: int(body.get("limit") or 1_000)]]})


def _types(_: Call) -> dict[str, Any]:
    """The names of events that this instance knows, those that the gateway subscribes to among them."""
    return {"eventTypes": [{"type": kind, "localized": {"key": kind}} for kind in EVENT_TYPES]}


def _seconds(text: object, default: float = 0.0) -> float:
    return datetime.fromisoformat(str(text)).timestamp() if text else default


def _protojson(event: Event) -> dict[str, Any]:
    document = {
        "editor": {"userId": event.editor, "displayName": event.editor, "service": "EMULATOR"},
        "aggregate": {"id": event.aggregate_id, "type": {"type": event.aggregate_type}, "resourceOwner": ORG},
        "sequence": str(event.sequence),
        "creationDate": moment(event.at),
        "type": {"type": event.kind, "localized": {"key": f"EventTypes.{event.kind}"}},
    }
    return document | ({"payload": dict(event.payload)} if event.payload else {})
