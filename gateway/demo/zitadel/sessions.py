"""The sessions of the emulated instance: checks that become factors, and the Session API over them."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.demo.idp.accounts import ORG
from gateway.demo.idp.token_issuer import snowflake
from gateway.demo.zitadel.events import EventLog
from gateway.demo.zitadel.switches import Switches
from gateway.demo.zitadel.users import ACTIVE, STEP_S, User, Users
from gateway.demo.zitadel.wire import (
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    PRECONDITION,
    UNIMPLEMENTED,
    ApiError,
    Call,
    Endpoint,
    moment,
    seconds,
)

_EVENTS = {"user": "session.user.checked", "password": "session.password.checked", "totp": "session.totp.checked"}
_EVENTS |= {"intent": "session.intent.checked"}


@dataclass(slots=True)
class Session:
    """A login. `factors` maps "user", "password", "totp", "intent" to when it was checked."""

    id: str
    token: str = field(repr=False)
    created: float
    changed: float
    user: User | None = None
    factors: dict[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    agent: Mapping[str, Any] = field(default_factory=dict)
    expires: float | None = None
    ended: bool = False

    @property
    def amr(self) -> tuple[str, ...]:
        """Zitadel C16: pwd, otp, and mfa for two methods; an external provider adds nothing."""
        methods = [short for name, short in (("password", "pwd"), ("totp", "otp")) if name in self.factors]
        return (*methods, "mfa") if len(methods) > 1 else tuple(methods)

    @property
    def auth_time(self) -> float | None:
        """Zitadel C16: a session with a `user` check alone has none."""
        return max((at for name, at in self.factors.items() if name != "user"), default=None)


class Sessions:
    """Create, check, end. `ended` is called with each session that ends; `attempts` answers the lockout's limit."""

    def __init__(
        self, users: Users, log: EventLog, switches: Switches, clock: Callable[[], float], attempts: Callable[[], int]
    ) -> None:
        self.by_id: dict[str, Session] = {}
        self.ended: list[Callable[[Session], None]] = []
        self._users, self._log, self._switches, self._clock, self._attempts = users, log, switches, clock, attempts

    # ---- for the login pages and the emulator itself ----

    def begin(self, checks: Mapping[str, Any], **rest: Any) -> Session:
        """A session with these checks done. Raises ApiError, and there is none."""
        now = self._clock()
        session = Session(snowflake(), secrets.token_urlsafe(32), now, now, **rest)
        self._check(session, checks)
        self._log.add("session.added", "session", session.id)
        self._tell(session, checks)
        self.by_id[session.id] = session
        return session

    def live(self, session_id: str) -> Session | None:
        """The session, unless it ended, expired or is unknown."""
        session = self.by_id.get(session_id)
        if session is None or session.ended or (session.expires is not None and session.expires <= self._clock()):
            return None
        return session

    def proven(self, session_id: str, token: str) -> Session:
        """The session of this token. Raises ApiError."""
        session = self.live(session_id)
        if session is None:
            raise ApiError(NOT_FOUND, "Session not found", "QUERY-dd3kd")
        if not hmac.compare_digest(session.token.encode(), token.encode()):
            raise ApiError(FORBIDDEN, "Errors.Session.Token.Invalid", "COMMAND-sGr42")
        return session

    def end(self, session: Session, editor: str = "") -> None:
        """Zitadel C11: session.terminated; tokens of it are inactive at once and back-channel logout goes out."""
        if session.ended:
            return
        session.ended = True
        self._log.add("session.terminated", "session", session.id, editor=editor)
        for heard in self.ended:
            heard(session)

    # ---- checks ----

    def _check(self, session: Session, checks: Mapping[str, Any]) -> None:
        unknown = checks.keys() - {"user", "password", "totp", "idpIntent"}
        if unknown:
            raise ApiError(UNIMPLEMENTED, f"the emulator cannot check {', '.join(sorted(unknown))}")
        if "user" in checks:
            wanted = checks["user"]
            user = self._users.by_id.get(wanted.get("userId", "")) or self._users.named(wanted.get("loginName", ""))
            if user is None:
                raise ApiError(NOT_FOUND, "User could not be found", "QUERY-Dfbg2")
            if session.user is not None and session.user is not user:
                raise ApiError(INVALID, "Errors.Session.UserChanged", "COMMAND-u4s3r")
            session.user = user
        if session.user is None and checks:
            raise ApiError(INVALID, "Errors.User.UserIDMissing", "COMMAND-Sfw3f")
        if session.user is not None:
            self._prove(session.user, checks)
        now = self._clock()
        session.factors |= {"intent" if name == "idpIntent" else name: now for name in checks}
        session.changed = now

    def _prove(self, user: User, checks: Mapping[str, Any]) -> None:
        if user.state != ACTIVE:
            # Zitadel C9: locked and deactivated users pass no check.
            raise ApiError(PRECONDITION, "Errors.User.Locked", "COMMAND-JLK35")
        if "password" in checks and not user.knows(checks["password"]["password"]):
            self._failed(user)
            raise ApiError(INVALID, "Errors.User.Password.Invalid", "COMMAND-3M0fs")
        if "totp" in checks:
            code = str(checks["totp"]["code"]).encode()
            now = int(self._clock()) // STEP_S
            # Zitadel takes the code before as well (RFC 6238 section 5.2).
            good = [step for step in (now, now - 1) if hmac.compare_digest(user.code(step * STEP_S).encode(), code)]
            if not good or good[0] <= user.last_code:
                raise ApiError(INVALID, "Errors.User.MFA.OTP.InvalidCode", "EVENT-8isk2")
            user.last_code = good[0]
        user.failures = 0

    def _failed(self, user: User) -> None:
        user.failures += 1
        self._log.add("user.human.password.check.failed", "user", user.person.subject)
        # Zitadel C14: lockout is off (0) until it is set.
        if 0 < self._attempts() <= user.failures:
            self._users.move(user.person.subject, "lock")

    def _tell(self, session: Session, checks: Mapping[str, Any]) -> None:
        for name in checks:
            payload = {"userID": session.user.person.subject} if name == "user" and session.user else None
            self._log.add(_EVENTS["intent" if name == "idpIntent" else name], "session", session.id, payload)
        self._log.add("session.token.set", "session", session.id)

    # ---- the API ----

    def endpoints(self) -> list[Endpoint]:
        """The REST calls of the Session service."""
        return [
            Endpoint("POST", "/v2/sessions", "any", self._create, 201),
            Endpoint("POST", "/v2/sessions/search", "users", self._search),
            Endpoint("PATCH", "/v2/sessions/{id}", "any", self._patch),
            Endpoint("GET", "/v2/sessions/{id}", "users", self._get),
            Endpoint("DELETE", "/v2/sessions/{id}", "any", self._delete),
            Endpoint("POST", "/zitadel.session.v2.SessionService/CreateSession", "any", self._create),
        ]

    def _create(self, call: Call) -> dict[str, Any]:
        body = call.body
        life = self._clock() + seconds(body["lifetime"]) if "lifetime" in body else None
        rest = {"metadata": body.get("metadata", {}), "agent": body.get("userAgent", {}), "expires": life}
        session = self.begin(body.get("checks", {}), **rest)
        return {**self._details(session), "sessionId": session.id, "sessionToken": session.token}

    def _patch(self, call: Call) -> dict[str, Any]:
        session = self._session(call)
        if "sessionToken" in call.body:
            self.proven(session.id, call.body["sessionToken"])
        checks = call.body.get("checks", {})
        self._check(session, checks)
        self._tell(session, checks)
        # Zitadel C14: a new sessionToken, the old one dies.
        session.token = secrets.token_urlsafe(32)
        return {**self._details(session), "sessionToken": session.token}

    def _get(self, call: Call) -> dict[str, Any]:
        return {"session": self._document(self._session(call))}

    def _delete(self, call: Call) -> dict[str, Any]:
        session = self._session(call)
        if "sessionToken" in call.body:
            self.proven(session.id, call.body["sessionToken"])
        self.end(session, call.editor)
        return self._details(session)

    def _search(self, call: Call) -> dict[str, Any]:
        """Zitadel C14: there is no "terminate all"; search by userIdQuery and delete each."""
        sessions = [session for session in self.by_id.values() if self.live(session.id)]
        for query in call.body.get("queries", ()):
            if "userIdQuery" in query:
                wanted = query["userIdQuery"]["id"]
                sessions = [
                    session
                    for session in sessions
                    if session.user is not None and session.user.person.subject == wanted
                ]
            elif "idsQuery" in query:
                sessions = [session for session in sessions if session.id in query["idsQuery"]["ids"]]
            else:
                raise ApiError(UNIMPLEMENTED, f"the emulator cannot search by {', '.join(query)}")
        paging = call.body.get("query", {})
        start, limit = int(paging.get("offset", 0)), int(paging.get("limit", 100))
        ordered = sessions if paging.get("asc") else sessions[::-1]
        listed = [self._document(session) for session in ordered[start : start + limit]]
        answer: dict[str, Any] = {"details": {"totalResult": str(len(sessions)), "timestamp": moment(self._clock())}}
        return answer | ({"sessions": listed} if listed else {})

    def _session(self, call: Call) -> Session:
        session = self.live(call.path["id"])
        if session is None:
            raise ApiError(NOT_FOUND, "Session not found", "QUERY-dd3kd")
        return session

    def _details(self, session: Session) -> dict[str, Any]:
        sequence = str(self._log.sequence("session", session.id))
        return {"details": {"sequence": sequence, "changeDate": moment(session.changed), "resourceOwner": ORG}}

    def _document(self, session: Session) -> dict[str, Any]:
        factors: dict[str, Any] = {name: {"verifiedAt": moment(at)} for name, at in session.factors.items()}
        if session.user is not None:
            person = session.user.person
            names = {"loginName": person.user, "displayName": person.name, "organizationId": person.org}
            factors["user"] = {**factors.get("user", {}), "id": person.subject, **names}
        document: dict[str, Any] = {
            "id": session.id,
            "creationDate": moment(session.created),
            "changeDate": moment(session.changed),
            "sequence": str(self._log.sequence("session", session.id)),
            "factors": factors,
        }
        document |= {"metadata": dict(session.metadata)} if session.metadata else {}
        document |= {"userAgent": dict(session.agent)} if session.agent else {}
        return document | ({"expirationDate": moment(session.expires)} if session.expires is not None else {})
