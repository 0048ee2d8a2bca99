"""The users of the emulated instance: who may log in with what, and the User API."""

from __future__ import annotations

import hmac
import secrets
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from typing import Any

from gateway.demo.idp.accounts import PASSWORD, Person
from gateway.demo.zitadel.events import EventLog
from gateway.demo.zitadel.wire import NOT_FOUND, PRECONDITION, ApiError, Call, Endpoint, moment

ACTIVE, LOCKED, INACTIVE, DELETED = (f"USER_STATE_{name}" for name in ("ACTIVE", "LOCKED", "INACTIVE", "DELETED"))
# (the state that it needs, the next state, the event, the error otherwise)
_MOVES = {
    "lock": ((ACTIVE,), LOCKED, "user.locked", "Errors.User.ShouldBeActiveOrInitial"),
    "unlock": ((LOCKED,), ACTIVE, "user.unlocked", "Errors.User.NotLocked"),
    "deactivate": ((ACTIVE, LOCKED), INACTIVE, "user.deactivated", "Errors.User.AlreadyInactive"),
    "reactivate": ((INACTIVE,), ACTIVE, "user.reactivated", "Errors.User.NotInactive"),
}
STEP_S = 30


@dataclass(slots=True)
class User:
    """Somebody with a state and factors. `failures` counts wrong passwords in a row."""

    person: Person
    password: str = field(default=PASSWORD, repr=False)
    state: str = ACTIVE
    password_changed: float = 0.0
    failures: int = 0
    totp_secret: bytes = field(default_factory=lambda: secrets.token_bytes(20), repr=False)
    last_code: int = -1

    def code(self, at: float) -> str:
        """The TOTP code of this moment (RFC 6238, SHA-1, six digits, thirty seconds)."""
        mac = hmac.new(self.totp_secret, struct.pack(">Q", int(at) // STEP_S), sha1).digest()
        start = mac[-1] & 15
        return f"{(int.from_bytes(mac[start : start + 4]) & 0x7FFFFFFF) % 1_000_000:06d}"

    def knows(self, password: str) -> bool:
        """Whether this is the password."""
        return hmac.compare_digest(sha256(password.encode()).digest(), sha256(self.password.encode()).digest())


class Users:
    """By subject. `barred` is the token office's set of those whose tokens are inactive."""

    def __init__(self, people: Iterable[Person], log: EventLog, barred: set[str], clock: Callable[[], float]) -> None:
        self.by_id = {person.subject: User(person) for person in people}
        self._log, self._barred, self._clock = log, barred, clock

    def named(self, login_name: str) -> User | None:
        """By login name: the user's name or address."""
        known = (user for user in self.by_id.values() if login_name in {user.person.user, user.person.email})
        return next(known, None)

    def move(self, subject: str, action: str, editor: str = "") -> None:
        """Lock, unlock, deactivate or reactivate. Raises ApiError."""
        user = self._user(subject)
        needed, state, event, error = _MOVES[action]
        if user.state not in needed:
            raise ApiError(PRECONDITION, error, "COMMAND-k2s9f")
        user.state, user.failures = state, 0
        # Zitadel C9: lock and deactivate kill tokens, end no session, send no back-channel logout (10307).
        (self._barred.discard if state == ACTIVE else self._barred.add)(subject)
        self._log.add(event, "user", subject, editor=editor)

    def remove(self, subject: str, editor: str = "") -> None:
        """Zitadel C9: removal is an event, no back-channel logout."""
        self._user(subject).state = DELETED
        self._barred.add(subject)
        self._log.add("user.removed", "user", subject, editor=editor)

    def change_password(self, subject: str, password: str, editor: str = "") -> None:
        """Zitadel C10: a password change is an event only; sessions and tokens live on."""
        user = self._user(subject)
        user.password, user.password_changed = password, self._clock()
        self._log.add("user.human.password.changed", "user", subject, {"changeRequired": False}, editor)

    def change_roles(self, subject: str, roles: list[str], editor: str = "") -> None:
        """Zitadel C10: a changed grant is an event only; a removed one has no payload."""
        grant = f"{subject[-9:]}000000001"
        kind = "user.grant.changed" if roles else "user.grant.removed"
        self._log.add(kind, "usergrant", grant, {"userId": subject, "roleKeys": roles} if roles else None, editor)

    def endpoints(self) -> list[Endpoint]:
        """The REST calls of the User service."""
        moves = [Endpoint("POST", f"/v2/users/{{id}}/{action}", "users", self._mover(action)) for action in _MOVES]
        return [
            Endpoint("GET", "/v2/users/{id}", "any", self._get),
            Endpoint("DELETE", "/v2/users/{id}", "users", self._delete),
            Endpoint("POST", "/v2/users/{id}/password", "users", self._password),
            Endpoint("GET", "/v2/users/{id}/authentication_methods", "any", self._methods),
            Endpoint("POST", "/v2/users/{id}/authentication_factors/_search", "any", self._factors),
            *moves,
        ]

    def _user(self, subject: str) -> User:
        user = self.by_id.get(subject)
        if user is None or user.state == DELETED:
            raise ApiError(NOT_FOUND, "User could not be found", "QUERY-Dfbg2")
        return user

    def _details(self, subject: str) -> dict[str, Any]:
        details = {"sequence": str(self._log.sequence("user", subject)), "changeDate": moment(self._clock())}
        return {"details": details}

    def _mover(self, action: str) -> Callable[[Call], dict[str, Any]]:
        def move(call: Call) -> dict[str, Any]:
            self.move(call.path["id"], action, call.editor)
            return self._details(call.path["id"])

        return move

    def _delete(self, call: Call) -> dict[str, Any]:
        self.remove(call.path["id"], call.editor)
        return self._details(call.path["id"])

    def _password(self, call: Call) -> dict[str, Any]:
        self.change_password(call.path["id"], call.body["newPassword"]["password"], call.editor)
        return self._details(call.path["id"])

    def _get(self, call: Call) -> dict[str, Any]:
        user = self._user(call.path["id"])
        person = user.person
        document: dict[str, Any] = {
            "userId": person.subject,
            "state": user.state,
            "username": person.user,
            "loginNames": [person.user, person.email],
            "preferredLoginName": person.user,
        }
        if person.amr:
            changed = {"passwordChanged": moment(user.password_changed)} if user.password_changed else {}
            profile = {"displayName": person.name, "givenName": person.name.partition(" ")[0]}
            document["human"] = {"profile": profile, "email": {"email": person.email, "isVerified": True}, **changed}
        else:
            document["machine"] = {"name": person.name}
        return {**self._details(person.subject), "user": document}

    def _methods(self, call: Call) -> dict[str, Any]:
        has = self._user(call.path["id"]).person.amr
        kinds = ["PASSWORD"] if has else []
        kinds += ["TOTP"] if "otp" in has else []
        listed = [f"AUTHENTICATION_METHOD_TYPE_{kind}" for kind in kinds]
        return {"details": {"totalResult": str(len(listed))}, "authMethodTypes": listed}

    def _factors(self, call: Call) -> dict[str, Any]:
        has = self._user(call.path["id"]).person.amr
        return {"result": [{"state": "AUTH_FACTOR_STATE_READY", "otp": {}}]} if "otp" in has else {}
