"""The faults of the emulated instance, one switch each. All off is a healthy instance on loopback."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Switches:
    """Set attributes to break things; `set` does so by name."""

    # Zitadel C16: clocks differ; positive is ahead of the world.
    skew_s: float = 0.0
    # Zitadel C16: Login V2 has ignored max_age (12258).
    ignore_max_age: bool = False
    # Zitadel C16: a login through an external provider adds nothing to amr.
    empty_amr: bool = False
    # Zitadel C16: auth_time is missing for a session with a `user` check alone; here for every session.
    no_auth_time: bool = False
    # Zitadel C15: 4.15.2 and later refuse private addresses for targets and logout URIs unless the list is narrowed.
    deny_list: bool = False
    # Zitadel C12: event_payload is an object or, in other versions, the same as base64 text.
    base64_payload: bool = False
    # Zitadel C12: a fresh target may not fire until it was updated (12185).
    fresh_targets_sleep: bool = False
    # Deliveries (webhooks and back-channel logouts).
    deliver_twice: bool = False
    deliver_late_s: float = 0.0
    deliver_nothing: bool = False
    # Every API call and every OAuth endpoint answers 503.
    unavailable: bool = False
    # Every answer waits.
    slow_s: float = 0.0

    def set(self, name: str, value: object) -> None:
        """Raises ValueError for a name or value that is none."""
        known = {one.name: type(one.default) for one in fields(self)}
        wanted = known.get(name)
        if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(self, name, float(value))
        elif wanted is bool and isinstance(value, bool):
            setattr(self, name, value)
        else:
            raise ValueError(f"no such switch or value: {name}")

    def reset(self) -> None:
        """All off."""
        for one in fields(self):
            setattr(self, one.name, one.default)
