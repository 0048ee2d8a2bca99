"""Login sessions: one for each sign-in of a person in a browser, shared by every worker, ended in one place.

Laws: the end of a session is written before anything else is done about it, and nothing brings it back. A session that
was revoked in the list of sessions (`SessionStore`) is ended here at its next use. Raises StoreDown.

Collections: `login_session` (key: the session's id, group: issuer|subject), `sid` (the issuer's names for them, group:
issuer|sid), `tokens` (what the issuer handed out, apart, because only refresh and sign-out need it).
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import SessionRecord, SessionStore
from gateway.core.reasons import Refusal
from gateway.core.subject import Identity, Role, subject_key
from gateway.identity.bearer.sessions import session_id
from gateway.identity.oidc.relying_party import Tokens
from gateway.state.collection import Codec, Collection, Entry

SESSIONS, SIDS, TOKENS, HELD = "login_session", "sid", "tokens", "held_sid"
_SHARDS = 256
_ENDED_SID_KEPT_S = 900.0  # longer than a sign-in takes
_KEPT_S = 3_600.0  # after its end a session is still known, so that it is not taken for a stranger's
_LEAD_S = 60.0
_TRIES = 20
_BEARER = re.compile(r"b_[A-Za-z0-9_-]{32}\Z")


@dataclass(frozen=True, slots=True)
class LoginSession:
    """A person's sign-in. Times are seconds since the epoch; `ends_at` is the absolute limit.

    `device_id` "" is a session that is bound to no device. `fresh_until` is the end of the access token, None when it
    is not renewed; from `renew_at` on it is. `elevated_amr` are the factors proven here at `elevated_at`, good until
    `elevated_until`. `rotation` grows with every such proof; cookies and tickets of an earlier one are good no more.
    `issued_at` is the issuer's own time of the sign-in (`iat`, whole seconds).
    """

    id: str
    identity: Identity
    sid: str
    device_id: str
    agent: str
    created_at: float
    last_seen_at: float
    ends_at: float
    fresh_until: float | None = None
    renew_at: float | None = None
    elevated_until: float | None = None
    elevated_at: float | None = None
    elevated_amr: tuple[str, ...] = ()
    rotation: int = 0
    issued_at: float = 0.0
    ended_at: float | None = None
    ended_why: str = ""

    def flaw(self, now: float, idle_s: float) -> Refusal | None:
        """Why this session is no longer good: `session_revoked` or `session_expired`."""
        if self.ended_at is not None:
            return Refusal("session_revoked", self.ended_why)
        if now >= self.ends_at:
            return Refusal("session_expired", "absolute limit")
        if now >= self.last_seen_at + idle_s:
            return Refusal("session_expired", "idle")
        return None

    def was_before(self, at: float) -> bool:
        """Whether the sign-in was completed before a time of the issuer's; within one second our own clock decides."""
        if not self.issued_at or self.issued_at + 1 <= at:
            return True
        return self.issued_at <= at and self.created_at <= at

    def is_elevated(self, now: float) -> bool:
        """Whether something was proven here that still counts."""
        return self.elevated_until is not None and now < self.elevated_until

    def subject_now(self, now: float) -> Identity:
        """The identity with what was proven here added to it, for as long as that is good."""
        amr = (*self.identity.amr, *self.elevated_amr) if self.is_elevated(now) else self.identity.amr
        return replace(self.identity, amr=tuple(dict.fromkeys(amr)), session_hint=self.id, expires_at=self.ends_at)


def _decode(value: bytes) -> LoginSession:
    document: dict[str, Any] = json.loads(value)
    identity = document["identity"]
    identity |= {name: tuple(identity[name]) for name in ("scopes", "amr")}
    identity["roles"] = tuple(Role(**role) for role in identity["roles"])
    document |= {"identity": Identity(**identity), "elevated_amr": tuple(document["elevated_amr"])}
    return LoginSession(**document)


_CODEC: Codec[LoginSession] = Codec(
    encode=lambda login: json.dumps(asdict(login), separators=(",", ":")).encode(), decode=_decode
)
_TOKENS: Codec[Tokens] = Codec(
    encode=lambda tokens: json.dumps(asdict(tokens)).encode(), decode=lambda value: Tokens(**json.loads(value))
)


class LoginSessions:
    """The store of login sessions; meets `SessionEnder`."""

    def __init__(
        self,
        documents: Documents,
        store: SessionStore,
        clock: Callable[[], float],
        random: Callable[[], str],
        *,
        idle_s: float = 1_800,
        absolute_s: float = 43_200,
    ) -> None:
        self._documents = documents
        self._sessions = Collection(documents=documents, name=SESSIONS, codec=_CODEC, clock=clock)
        self._tokens = Collection(documents=documents, name=TOKENS, codec=_TOKENS, clock=clock)
        self._store = store
        self._clock = clock
        self._random = random
        self.idle_s, self._absolute_s = idle_s, absolute_s

    async def create(
        self, identity: Identity, sid: str, tokens: Tokens, *, device_id: str, agent: str, issued_at: float = 0.0
    ) -> LoginSession | Refusal:
        """A new session for a sign-in that was checked. Refusal `session_revoked` when the issuer ended it already."""
        now = self._clock()
        fresh_until = tokens.expires_at if tokens.refresh_token is not None else None
        if sid and await self._documents.get(SIDS, _ended_key(identity.issuer, sid), now) is not None:
            return Refusal("session_revoked", "ended by the issuer during the sign-in")
        login = LoginSession(
            id="l_" + self._random(),
            identity=replace(identity, confirmation={}),
            sid=sid,
            device_id=device_id,
            agent=agent,
            created_at=now,
            last_seen_at=now,
            ends_at=now + self._absolute_s,
            fresh_until=fresh_until,
            renew_at=renewal(now, fresh_until),
            issued_at=issued_at,
        )
        await self.put_tokens(login, tokens, version=0)
        if sid:
            by_sid, by_shard = (subject_key(identity.issuer, name) for name in (sid, str(_order(sid)[0])))
            await self._documents.overwrite(SIDS, login.id, b"{}", login.ends_at, group=by_sid)
            await self._documents.overwrite(HELD, login.id, sid.encode(), login.ends_at, group=by_shard)
        await self._write(Entry(login.id, None, 0), login)
        # A logout that came between the two: it found no session to end.
        if sid and await self._documents.get(SIDS, _ended_key(identity.issuer, sid), now) is not None:
            await self.end(login.id, "ended by the issuer during the sign-in")
            return Refusal("session_revoked", "ended by the issuer during the sign-in")
        return login

    async def live(self, login_id: str) -> LoginSession | Refusal:
        """The session, if it is good now.

        Refusals: `login_required` for an unknown one, `session_revoked`, `session_expired`.
        """
        login = await self._sessions.get(login_id)
        if login is None:
            return Refusal("login_required", "an unknown session")
        if flaw := login.flaw(self._clock(), self.idle_s):
            return flaw
        record = await self._store.session(login_id)
        if record is not None and record.revoked_at is not None:
            await self.end(login_id, record.revoked_why)
            return Refusal("session_revoked", record.revoked_why)
        return login

    async def change(self, login_id: str, make: Callable[[LoginSession], LoginSession | None]) -> LoginSession | None:
        """Apply `make` to the session as it is now, by compare-and-set; None when it is over or `make` says None."""
        async for entry in self._sessions.attempts(login_id, _TRIES):
            login = entry.value
            if login is None or login.flaw(self._clock(), self.idle_s):
                return None
            changed = make(login)
            if changed is None or await self._write(entry, changed):
                return changed
        return None

    async def seen(self, login: LoginSession, step_s: float) -> None:
        """Note that the session is in use, at most once every `step_s`."""
        now = self._clock()
        if now - login.last_seen_at >= step_s:
            await self.change(
                login.id, lambda found: replace(found, last_seen_at=now) if found.last_seen_at < now else None
            )

    async def elevate(self, login_id: str, amr: Sequence[str], until: float) -> LoginSession | None:
        """Factors were proven here just now: `amr` is theirs until `until`. None when the session is over.

        They take the place of what was proven before. Every cookie and ticket of the session is good no more: what was
        stolen does not rise with its owner.
        """
        now = self._clock()

        def make(current: LoginSession) -> LoginSession:
            return replace(
                current,
                elevated_amr=tuple(amr),
                elevated_at=now,
                elevated_until=min(until, current.ends_at),
                rotation=current.rotation + 1,
            )

        return await self.change(login_id, make)

    async def lower(self, issuer: str, subject: str) -> int:
        """Take back what a person proved here in every session; how many that were."""
        lowered = 0
        for login in await self.of_subject(issuer, subject):
            if login.elevated_until is not None:
                plain = await self.change(login.id, lambda found: replace(found, elevated_amr=(), elevated_until=None))
                lowered += plain is not None
        return lowered

    # ---- tokens ----

    async def tokens(self, login_id: str) -> tuple[Tokens, int] | None:
        """What the issuer handed out last, and its version; None when there is nothing."""
        entry = await self._tokens.read(login_id)
        return None if entry.value is None else (entry.value, entry.version)

    async def put_tokens(self, login: LoginSession, tokens: Tokens, *, version: int) -> bool:
        """Keep tokens in place of those of `version`; whether they were kept."""
        return await self._tokens.replace(Entry(login.id, None, version), tokens, login.ends_at)

    # ---- the end ----

    async def end(self, login_id: str, why: str) -> bool:
        """End a session; whether it was there and had not ended before."""
        now = self._clock()
        async for entry in self._sessions.attempts(login_id, _TRIES):
            login = entry.value
            if login is None:
                return False
            if login.ended_at is not None:
                # Ended, and maybe not told: the store went away in between, and whoever asked asks again.
                record = await self._store.session(login_id)
                if record is None or record.revoked_at is not None:
                    return False
                break
            if await self._write(entry, replace(login, ended_at=now, ended_why=why)):
                break
        else:
            # Where somebody else writes all the time, the end goes over what is there.
            await self._overwrite(login_id, now, why)
        await self._tokens.delete(login_id)
        await self._documents.delete(HELD, login_id)
        await self._store.revoke_session(login_id, now, why)
        return True

    async def end_login_sessions(
        self, issuer: str, *, sid: str | None = None, subject: str | None = None, why: str, before: float | None = None
    ) -> int:
        """See `SessionEnder`. A sign-in of `sid` that is under way is refused as well."""
        now, ended = self._clock(), 0
        if sid:
            await self._documents.overwrite(SIDS, _ended_key(issuer, sid), b"{}", now + _ENDED_SID_KEPT_S)
            for found in await self._documents.list(SIDS, subject_key(issuer, sid), now):
                login = await self._sessions.get(found.key)
                if login is None or (subject is not None and login.identity.subject != subject):
                    continue
                ended += await self.end(login.id, why)
                ended += await self._revoke(session_id(issuer, login.identity.subject, sid), why)
        elif subject:
            remaining = set()
            for login in await self.of_subject(issuer, subject):
                if before is None or login.was_before(before):
                    ended += await self.end(login.id, why)
                else:
                    remaining.add(login.id)
            for record in await self._store.sessions(subject):
                if record.issuer == issuer and record.revoked_at is None and record.id not in remaining:
                    ended += await self._revoke(record.id, why)
        if sid and subject:
            ended += await self._revoke(session_id(issuer, subject, sid), why)
        return ended

    async def end_named(self, issuer: str, subject: str, name: str, why: str) -> int:
        """End the session of a person that another gateway calls `name`: the issuer's `sid`, or a bearer session's id.

        One that was never used here is ended before its first use. How many were ended.
        """
        now, ended = self._clock(), 0
        bearer = name if _BEARER.match(name) else session_id(issuer, subject, name)
        for login in await self.of_subject(issuer, subject):
            if login.sid and session_id(issuer, subject, login.sid) == bearer:
                ended += await self.end(login.id, why)
        record = await self._store.session(bearer)
        if record is None:
            unseen = SessionRecord(bearer, issuer, subject, subject, "", now, now, now + self._absolute_s)
            await self._store.put_session(unseen)
        elif (record.issuer, record.subject) != (issuer, subject):
            return ended
        return ended + await self._revoke(bearer, why)

    async def of_subject(self, issuer: str, subject: str) -> list[LoginSession]:
        """A person's running sessions, oldest first."""
        now, entries = self._clock(), await self._sessions.list(subject_key(issuer, subject))
        logins = [entry.value for entry in entries if entry.value is not None]
        return [login for login in logins if login.flaw(now, self.idle_s) is None]

    async def held_sids(self, issuer: str, after: str, limit: int) -> list[str]:
        """An issuer's names of the sessions that run here: those that come after one of them, so many at most.

        Their order is that of their digests, so that no look has to read them all.
        """
        now, session_ids = self._clock(), set[str]()
        start = _order(after) if after else (0, "")
        for shard in range(start[0], _SHARDS):
            documents = await self._documents.list(HELD, subject_key(issuer, str(shard)), now)
            session_ids |= {sid for item in documents if _order(sid := item.value.decode()) > start}
            if len(session_ids) >= limit:
                break
        return sorted(session_ids, key=_order)[:limit]

    async def _revoke(self, bearer_id: str, why: str) -> int:
        record = await self._store.session(bearer_id)
        if record is None or record.revoked_at is not None:
            return 0
        return int(await self._store.revoke_session(bearer_id, self._clock(), why))

    async def _write(self, over: Entry[LoginSession], login: LoginSession) -> bool:
        until, group = login.ends_at + _KEPT_S, subject_key(login.identity.issuer, login.identity.subject)
        return await self._sessions.replace(over, login, until, group=group)

    async def _overwrite(self, login_id: str, now: float, why: str) -> None:
        """End a session whatever else was written; nothing else of it counts from then on."""
        login = await self._sessions.get(login_id)
        if login is not None:
            value = _CODEC.encode(replace(login, ended_at=now, ended_why=why))
            until, group = login.ends_at + _KEPT_S, subject_key(login.identity.issuer, login.identity.subject)
            await self._documents.overwrite(SESSIONS, login_id, value, until, group=group)


def renewal(now: float, fresh_until: float | None) -> float | None:
    """When a token that is good from now until then is renewed, while requests go on; None for never."""
    return None if fresh_until is None else fresh_until - min(_LEAD_S, (fresh_until - now) / 5)


def _order(sid: str) -> tuple[int, str]:
    """Where a `sid` stands in the order of `held_sids`."""
    return sha256(sid.encode("utf-8", "surrogatepass")).digest()[0], sid


def _ended_key(issuer: str, sid: str) -> str:
    return (
        "ended|"
        + urlsafe_b64encode(sha256(subject_key(issuer, sid).encode("utf-8", "surrogatepass")).digest()).decode()
    )
