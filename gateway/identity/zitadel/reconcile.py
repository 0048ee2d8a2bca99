"""The loop that covers what pushes lose: Zitadel's events read in order, and the sessions we hold looked up there.

One worker of all runs it for an issuer: who holds the lease document. The cursor is a document too, so the next runner
goes on where the last one stopped. Nothing is skipped because something failed: the cursor waits before it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import SessionEnder, StoreDown
from gateway.core.reasons import Refusal
from gateway.identity.jose.strict_json import read_object
from gateway.identity.zitadel.access import ApiFailure
from gateway.identity.zitadel.api import Zitadel
from gateway.identity.zitadel.events import EVENT_TYPES, OVERLAP_S, Event, EventCursor
from gateway.identity.zitadel.webhooks import EventActor
from gateway.state.collection import Codec, Collection
from gateway.state.lease import Lease

INTERVAL_S = 2.0
SWEEP_S = 30.0
LEASE_S = 5.0
_CURSORS = "zitadel_cursor"
_FOREVER_S = 400 * 86_400.0
_PAGE, _PAGES = 500, 20
_BATCH, _BATCHES = 100, 10
_CONFIRMATIONS = 50
_MAX_SEEN = 20_000


def _encode(cursor: EventCursor | None) -> bytes:
    if cursor is None:
        raise ValueError("no cursor to write")
    return json.dumps({"since": _text(cursor.since), "seen": sorted(cursor.seen)}).encode()


def _decode(value: bytes) -> EventCursor | None:
    """The cursor; None for what cannot be read, over which a new one is written."""
    document = read_object(value, members=_MAX_SEEN + 10) or {}
    seen = document.get("seen")
    try:
        since = datetime.fromisoformat(str(document.get("since")))
    except ValueError:
        return None
    return (
        EventCursor(since, frozenset(map(str, seen))) if since.tzinfo is not None and isinstance(seen, list) else None
    )


_CURSOR: Codec[EventCursor | None] = Codec(encode=_encode, decode=_decode)


class HeldSessions(Protocol):
    """The login sessions of an issuer that we hold."""

    async def held_sids(self, issuer: str, after: str, limit: int) -> Sequence[str]:
        """The `sid`s greater than `after`, in order, so many at most. Raises StoreDown."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did. `trouble` is why it stopped early, "" when it did not."""

    is_runner: bool
    events: int = 0
    ended: int = 0
    swept: int = 0
    trouble: str = ""


class Reconciler:
    """Reconciles one issuer. `round` may be called from every worker; one at a time does something."""

    def __init__(
        self,
        api: Zitadel,
        actor: EventActor,
        ender: SessionEnder,
        documents: Documents,
        held: HeldSessions,
        clock: Callable[[], float],
        name: str = "",
    ) -> None:
        self._api, self._actor, self._ender = api, actor, ender
        self._held, self._clock = held, clock
        # The worker's: what follows a reload in it goes on at once with the lease of what was there before.
        self._lease = Lease(
            documents=documents, key=api.issuer, owner=name or secrets.token_hex(8), life_s=LEASE_S, clock=clock
        )
        self._cursors = Collection(documents=documents, name=_CURSORS, codec=_CURSOR, clock=clock)
        self._swept_at = clock()
        self._sweep_after = ""
        self._missing: frozenset[str] = frozenset()

    async def run(self, heard: Callable[[Round], None], interval_s: float = INTERVAL_S) -> None:
        """For ever: a round, its report to `heard`, a pause. A round that fails is told and tried again."""
        while True:
            heard(await self.round())
            await asyncio.sleep(interval_s)

    async def round(self) -> Round:
        """One round, if this worker is the runner: a bounded number of events, and a sweep when one is due."""
        try:
            if not await self._lease.hold():
                return Round(is_runner=False)
            told = await self._events()
            if not told.trouble and self._clock() >= self._swept_at + SWEEP_S:
                told = await self._sweep(told)
        except StoreDown:
            return Round(is_runner=False, trouble="store_down")
        return told

    # ---- events ----

    async def _events(self) -> Round:
        entry = await self._cursors.read(self._api.issuer)
        cursor = entry.value or self._start()
        events = ended = 0
        for number in range(_PAGES):
            if number and not await self._lease.hold():
                return Round(is_runner=False, events=events, ended=ended)
            page = await self._api.events(EVENT_TYPES, since=_text(cursor.since), limit=_PAGE)
            if isinstance(page, ApiFailure):
                return Round(is_runner=True, events=events, ended=ended, trouble=f"events: {page.kind}")
            done: list[Event] = []
            trouble = ""
            for event in cursor.fresh(page.events):
                count = await self._actor.act(event)
                if isinstance(count, Refusal):
                    trouble = f"{event.type}: {count.detail}"
                    break
                done.append(event)
                ended += count
            events += len(done)
            if trouble:
                reached = done[-1] if done else None
                upto = page.events[: page.events.index(reached) + 1] if reached is not None else ()
                after = cursor.after(upto, is_full=True)
            else:
                after = cursor.after(page.events, is_full=page.is_full)
            until = self._clock() + _FOREVER_S
            if after != entry.value and not await self._cursors.replace(entry, after, until):
                return Round(is_runner=False, events=events, ended=ended)
            if trouble or not page.is_full:
                return Round(is_runner=True, events=events, ended=ended, trouble=trouble)
            cursor, entry = after, await self._cursors.read(self._api.issuer)
            if entry.value != cursor:
                return Round(is_runner=False, events=events, ended=ended)
        return Round(is_runner=True, events=events, ended=ended)

    def _start(self) -> EventCursor:
        """Where the very first round begins: a little before now."""
        return EventCursor(datetime.fromtimestamp(self._clock(), UTC) - timedelta(seconds=OVERLAP_S))

    # ---- sessions ----

    async def _sweep(self, told: Round) -> Round:
        """Look our sessions up at Zitadel. One it misses twice, and says itself that it does not have, has ended.

        Twice, because its search lags behind; and a search may leave out what the gateway may not read.
        """
        ended = swept = 0
        looked_up: set[str] = set()
        missing: set[str] = set()
        for _ in range(_BATCHES):
            sids = await self._held.held_sids(self._api.issuer, self._sweep_after, _BATCH)
            self._sweep_after = sids[-1] if len(sids) >= _BATCH else ""
            # The old login's sessions are not in the Session API.
            asked = [sid for sid in sids if not sid.startswith("V1_")]
            found = await self._api.sessions_among(asked) if asked else ()
            if isinstance(found, ApiFailure):
                self._missing = frozenset()
                return Round(told.is_runner, told.events, told.ended + ended, swept, f"sessions: {found.kind}")
            swept += len(asked)
            looked_up.update(asked)
            now = self._clock()
            alive = {one.id for one in found if one.expires_at is None or one.expires_at > now - OVERLAP_S}
            missing |= set(asked) - alive
            if not self._sweep_after:
                break
        again = sorted(missing & self._missing)[:_CONFIRMATIONS]
        for sid in again:
            session = await self._api.session(sid)
            over = session is None or (
                not isinstance(session, ApiFailure) and session.expires_at is not None and session.expires_at <= now
            )
            if over:
                ended += await self._ender.end_login_sessions(
                    self._api.issuer, sid=sid, why="the identity provider has no such session"
                )
                missing.discard(sid)
        self._missing = (self._missing - looked_up) | missing
        if not self._sweep_after:
            self._swept_at = now
        return Round(told.is_runner, told.events, told.ended + ended, swept)


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
