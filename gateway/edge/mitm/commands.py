"""Commands and events of the edge's own, beside those of mitmproxy."""

from __future__ import annotations

from mitmproxy.proxy import commands, events


class Release(commands.ConnectionCommand):
    """Hand an upstream connection that is idle and clean back to the pool."""


class Abort(commands.ConnectionCommand):
    """Cut a connection at once, unsent data included."""


class Linger(commands.ConnectionCommand):
    """Everything is said: half-close, swallow what still arrives for a moment, then close (RFC 9112 section 9.6)."""


OURS = (Release, Abort, Linger)


class Interrupt(events.Event):
    """Something outside the stream ends it: a time-out, or access that was taken away."""

    def __init__(self, stream_id: int, reason: str) -> None:
        self.stream_id = stream_id
        self.reason = reason
