"""What ends here, told to those who follow it: pushed (RFC 8935) or kept until it is polled (RFC 8936).

Laws: an event is written down before it is told, and forgotten when it was acknowledged. What the store announced while
nobody ran is told later: the cursor over the changes is a document of its own. One worker of all runs it at a time.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.core.ports.documents import Documents
from gateway.core.ports.http import HttpClient, Unreachable
from gateway.core.ports.stores import Change, Changes, DeviceStore, SessionStore, StoreDown
from gateway.identity.jose.strict_json import read_object
from gateway.identity.sessions.login_sessions import SESSIONS as LOGINS
from gateway.identity.ssf.events import COMPLIANCE, MEDIA_TYPE, SESSION_REVOKED, TYP, EventSubject, SecurityEvent
from gateway.state.collection import Codec, Collection
from gateway.state.lease import Lease

_OUTBOX, _CURSOR = "set_out", "set_cursor"
_NAME = "shared-signals"
_KEPT_S, _FOREVER_S, _LEASE_S = 7 * 86_400.0, 400 * 86_400.0, 15.0
_WAIT_S, _TIMEOUT_S, _RETRY_S = 1.0, 5.0, 2.0
_ACCEPTED, _BAD = frozenset({200, 202, 204}), 400
_NEVER, _REFUSED = frozenset({"invalid_request", "invalid_audience", "invalid_issuer"}), "refused for good:"
_PAGE = 100
_NUMBER: Codec[int] = Codec(encode=lambda number: str(number).encode(), decode=int)


@dataclass(frozen=True, slots=True)
class Stream:
    """Somebody who follows us. `events` are the kinds it is told of."""

    name: str
    audience: str
    events: frozenset[str]
    push_url: str = ""
    push_token: str = field(default="", repr=False)
    poll_token: str = field(default="", repr=False)
    http: HttpClient | None = None


type Sign = Callable[[Mapping[str, Any], str], str]


class SignalTransmitter:
    """All streams. `sign` makes a compact JWT of claims and a typ; `issuer` is how the gateway names itself."""

    def __init__(
        self,
        streams: Sequence[Stream],
        issuer: str,
        sign: Sign,
        store: SessionStore,
        devices: DeviceStore,
        documents: Documents,
        changes: Changes,
        clock: Callable[[], float],
        name: str = "",
    ) -> None:
        self._streams = {stream.name: stream for stream in streams}
        self._issuer = issuer
        self._sign = sign
        self._sessions = store
        self._devices = devices
        self._documents = documents
        self._cursors = Collection(documents=documents, name=_CURSOR, codec=_NUMBER, clock=clock)
        self._changes = changes
        self._clock = clock
        self._lease = Lease(
            documents=documents,
            key=_NAME,
            owner=name or secrets.token_hex(8),
            life_s=_LEASE_S,
            clock=clock,
            renew_s=_LEASE_S / 2,
        )
        self._retry_at: dict[str, float] = {}

    async def tell(self, event: SecurityEvent, jti: str = "") -> None:
        """Write an event down for every stream that wants it. Raises StoreDown."""
        name, now = jti or secrets.token_urlsafe(16), self._clock()
        said = {"kind": event.kind, "about": asdict(event.about), "at": event.at, "details": dict(event.details)}
        value = json.dumps(said).encode()
        for stream in self._streams.values():
            if event.kind in stream.events:
                key = f"{stream.name}|{name}"
                await self._documents.put(_OUTBOX, key, value, now + _KEPT_S, version=0, group=stream.name)

    # ---- polled ----

    async def polled(self, name: str, token: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to a poll (RFC 8936 section 2.4); None for an unknown stream or a wrong token."""
        stream = self._streams.get(name)
        if stream is None or not stream.poll_token:
            return None
        if not hmac.compare_digest(stream.poll_token.encode(), token.encode("utf-8", "replace")):
            return None
        errors = asked.get("setErrs")
        over = [*_texts(asked.get("ack")), *(errors if isinstance(errors, dict) else ())]
        for jti in over:
            await self._documents.delete(_OUTBOX, f"{name}|{jti}")
        most = asked.get("maxEvents", _PAGE)
        most = most if isinstance(most, int) and 0 <= most <= _PAGE else _PAGE
        waiting = await self._documents.list(_OUTBOX, name, self._clock())
        sets = {item.key.partition("|")[2]: self._token(stream, item.key, item.value) for item in waiting[:most]}
        return {"sets": sets, "moreAvailable": len(waiting) > most}

    # ---- pushed ----

    async def run(self, heard: Callable[[str, str], None]) -> None:
        """For ever: follow the changes, push what waits. Trouble goes to `heard` with the stream's name."""
        if not self._streams:
            return
        after = 0
        while True:
            try:
                await self._changes.wait(after, _WAIT_S)
                if await self._lease.hold():
                    after = await self.follow()
                    await self.push(heard)
                else:
                    after = await self._changes.latest()
            except StoreDown:
                await asyncio.sleep(_WAIT_S)

    async def follow(self) -> int:
        """Turn every change since the cursor into events; where some are forgotten, go on from the last."""
        now = self._clock()
        cursor = await self._cursors.read(_NAME)
        latest = await self._changes.latest()
        after = latest if cursor.value is None else cursor.value
        found = await self._changes.changes(after) if after != latest else ()
        for change in found or ():
            event = await self._event_of(change)
            if event is not None:
                await self.tell(event, f"c{change.seq}")
        if found is None or cursor.value is None or after != latest:
            reached = max((change.seq for change in found or ()), default=latest)
            # Whoever led meanwhile has moved it on: theirs stays.
            await self._cursors.replace(cursor, reached, now + _FOREVER_S)
            return reached
        return after

    async def _event_of(self, change: Change) -> SecurityEvent | None:
        if change.kind == "session":
            session = await self._sessions.session(change.key)
            if session is None or session.revoked_at is None:
                return None
            about = EventSubject(session.issuer, session.subject, await self._named(session.id))
            details = {"reason_admin": {"en": session.revoked_why[:200]}, "initiating_entity": "system"}
            return SecurityEvent(SESSION_REVOKED, about, session.revoked_at, details)
        if change.kind == "device":
            device = await self._devices.device(change.key)
            if device is None or device.revoked_at is None:
                return None
            status = {"previous_status": "compliant", "current_status": "not-compliant"}
            return SecurityEvent(COMPLIANCE, EventSubject(device=device.id), device.revoked_at, status)
        return None

    async def _named(self, session_id: str) -> str:
        """What others call a session: the issuer's `sid`, or the name of a bearer session, which is the same at all.

        "" for one that nobody else can name: what is told of it is told of the person.
        """
        login = await self._documents.get(LOGINS, session_id, self._clock())
        if login is not None:
            return str(json.loads(login.value)["sid"])
        return "" if session_id.startswith("l_") else session_id

    async def push(self, heard: Callable[[str, str], None]) -> None:
        """Push what waits for every stream, in order; one that does not take it is tried again later."""
        now = self._clock()
        for stream in self._streams.values():
            if not stream.push_url or stream.http is None or now < self._retry_at.get(stream.name, 0.0):
                continue
            for item in (await self._documents.list(_OUTBOX, stream.name, now))[:_PAGE]:
                trouble = await self._pushed(stream, stream.http, self._token(stream, item.key, item.value))
                if trouble:
                    heard(stream.name, trouble)
                if trouble and not trouble.startswith(_REFUSED):
                    self._retry_at[stream.name] = now + _RETRY_S
                    break
                await self._documents.delete(_OUTBOX, item.key)

    async def _pushed(self, stream: Stream, http: HttpClient, token: str) -> str:
        """Push one; "" when the receiver has taken it, else what went wrong (`_REFUSED...`: it never will take it)."""
        headers = {"content-type": MEDIA_TYPE, "accept": "application/json"}
        if stream.push_token:
            headers["authorization"] = f"Bearer {stream.push_token}"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await http.post_bytes(stream.push_url, token.encode("ascii"), headers)
        except (Unreachable, TimeoutError) as failure:
            return f"{type(failure).__name__}: {failure}"[:200]
        if answer.status in _ACCEPTED:
            return ""
        # RFC 8935 section 2.4. What may be cured (a key that is not known yet, a credential) is sent again.
        err = str((read_object(answer.body) or {}).get("err", ""))[:64] if answer.status == _BAD else ""
        return f"{_REFUSED} {err}" if err in _NEVER else f"status {answer.status} {err}".rstrip()

    def _token(self, stream: Stream, key: str, value: bytes) -> str:
        said = json.loads(value)
        event = SecurityEvent(said["kind"], EventSubject(**said["about"]), said["at"], said["details"])
        jti = key.partition("|")[2]
        return self._sign(event.claims(self._issuer, stream.audience, jti, self._clock()), TYP)


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
