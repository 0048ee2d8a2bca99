"""A thin client of Zitadel's APIs: values in, values out. What goes wrong is an `ApiFailure`, never an exception.

protojson: 64-bit numbers are texts, durations "900s", times RFC 3339, and a value of zero is left out. Newer services
speak Connect (`/zitadel.<service>/<Method>`) only. Behind an internal address the public host goes into
`x-zitadel-instance-host`, else Zitadel knows no instance of that name.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from gateway.core.ports.http import HttpAnswer, HttpClient, Unreachable
from gateway.identity.jose.strict_json import read_object
from gateway.identity.zitadel.access import ApiFailure, ApiToken, instance_header
from gateway.identity.zitadel.events import EventPage, event_of

_SUCCESS = range(200, 300)
_MEMBERS = 50_000
_PAGE = 100
_PAGES = 10
_BLOCKED = re.compile(r"DeniedURL|Blocked\.BackchannelLogoutURL|deny ?list|denied (?:url|host|ip)", re.IGNORECASE)
_NO_INSTANCE = re.compile(r"instance not found|Errors\.Instance\.NotFound|Errors\.IAM\.NotFound", re.IGNORECASE)
_UNCHANGED = re.compile(r"NotChanged|not been changed|No changes", re.IGNORECASE)
# gRPC's codes by number and by Connect's name.
_KINDS: dict[object, str] = {
    3: "invalid", "invalid_argument": "invalid",
    5: "not_found", "not_found": "not_found",
    6: "exists", "already_exists": "exists",
    7: "forbidden", "permission_denied": "forbidden",
    9: "precondition", "failed_precondition": "precondition",
    12: "invalid", "unimplemented": "invalid",
    16: "unauthenticated", "unauthenticated": "unauthenticated",
}  # fmt: skip
_STATUSES = {400: "invalid", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 409: "exists"}


@dataclass(frozen=True, slots=True)
class LoginSession:
    """A session of Zitadel's Session API; its id is the `sid` of Login V2. Times are seconds, None for never."""

    id: str
    user_id: str
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class User:
    """A person or machine. `state` is "active", "inactive", "deleted", "locked", "initial" or "unspecified"."""

    id: str
    state: str
    login_name: str = ""


@dataclass(frozen=True, slots=True)
class Zitadel:
    """One instance. `base` is where it is reached; by default at its issuer."""

    issuer: str
    http: HttpClient
    credential: ApiToken
    base: str = ""
    _headers: dict[str, str] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", (self.base or self.issuer).rstrip("/"))
        self._headers.update(instance_header(self.issuer, self.base))

    # ---- sessions ----

    async def session(self, session_id: str) -> LoginSession | None | ApiFailure:
        """A session; None when there is none of that id (any more)."""
        answer = await self.rest("GET", f"/v2/sessions/{_segment(session_id)}")
        if isinstance(answer, ApiFailure):
            return None if answer.kind == "not_found" else answer
        found = _session(answer.get("session"))
        return found if found is not None else ApiFailure("garbled", "a session without an id")

    async def sessions_of(self, user_id: str) -> tuple[LoginSession, ...] | ApiFailure:
        """Every session of a user, a thousand at most."""
        return await self._sessions({"userIdQuery": {"id": user_id}}, _PAGES)

    async def sessions_among(self, ids: Sequence[str]) -> tuple[LoginSession, ...] | ApiFailure:
        """Those of these sessions (a hundred at most) that there are."""
        if len(ids) > _PAGE:
            raise ValueError("too many sessions at once")
        return await self._sessions({"idsQuery": {"ids": list(ids)}}, 1)

    async def delete_session(self, session_id: str) -> ApiFailure | None:
        """End a session; one that is not there has ended."""
        answer = await self.rest("DELETE", f"/v2/sessions/{_segment(session_id)}", {})
        return answer if isinstance(answer, ApiFailure) and answer.kind != "not_found" else None

    async def _sessions(self, query: Mapping[str, Any], pages: int) -> tuple[LoginSession, ...] | ApiFailure:
        found: list[LoginSession] = []
        for page in range(pages):
            asked = {"query": {"offset": str(page * _PAGE), "limit": _PAGE, "asc": True}, "queries": [query]}
            answer = await self.rest("POST", "/v2/sessions/search", asked)
            if isinstance(answer, ApiFailure):
                return answer
            entries = objects(answer, "sessions")
            found += [session for session in map(_session, entries) if session is not None]
            if len(entries) < _PAGE:
                break
        return tuple(found)

    # ---- users ----

    async def user(self, user_id: str) -> User | None | ApiFailure:
        """A user; None when there is none of that id."""
        answer = await self.rest("GET", f"/v2/users/{_segment(user_id)}")
        if isinstance(answer, ApiFailure):
            return None if answer.kind == "not_found" else answer
        found = answer.get("user")
        if not isinstance(found, dict):
            return ApiFailure("garbled", "no user")
        state = text(found, "state").removeprefix("USER_STATE_").lower() or "unspecified"
        return User(text(found, "userId") or user_id, state, text(found, "preferredLoginName"))

    async def lock(self, user_id: str) -> ApiFailure | None:
        """Lock a user: kills tokens, ends no session, sends no back-channel logout."""
        return await self._user_action(user_id, "lock")

    async def unlock(self, user_id: str) -> ApiFailure | None:
        """Unlock a user."""
        return await self._user_action(user_id, "unlock")

    async def deactivate(self, user_id: str) -> ApiFailure | None:
        """Deactivate a user: kills tokens, ends no session, sends no back-channel logout."""
        return await self._user_action(user_id, "deactivate")

    async def authentication_methods(self, user_id: str) -> tuple[str, ...] | ApiFailure:
        """What the user can log in with: "password", "passkey", "idp", "totp", "u2f", "otp_sms", "otp_email"."""
        answer = await self.rest("GET", f"/v2/users/{_segment(user_id)}/authentication_methods")
        if isinstance(answer, ApiFailure):
            return answer
        kinds = answer.get("authMethodTypes", [])
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            return ApiFailure("garbled", "authentication methods")
        return tuple(kind.removeprefix("AUTHENTICATION_METHOD_TYPE_").lower() for kind in kinds)

    async def _user_action(self, user_id: str, action: str) -> ApiFailure | None:
        answer = await self.rest("POST", f"/v2/users/{_segment(user_id)}/{action}", {})
        return answer if isinstance(answer, ApiFailure) else None

    # ---- settings, events ----

    async def settings(self, name: str) -> Mapping[str, Any] | ApiFailure:
        """The settings "login", "password/complexity", "password/expiry", "lockout" or "security", as protojson."""
        answer = await self.rest("GET", f"/v2/settings/{name}")
        if isinstance(answer, ApiFailure):
            return answer
        found = answer.get("settings", {})
        return found if isinstance(found, dict) else ApiFailure("garbled", "settings")

    async def events(
        self, types: Sequence[str], *, since: str = "", aggregate_id: str = "", limit: int = 1_000
    ) -> EventPage | ApiFailure:
        """Events of these types after `since` (RFC 3339), oldest first; those that cannot be read are left out."""
        asked: dict[str, Any] = {"limit": limit, "asc": True, "eventTypes": list(types)}
        asked |= {"from": since} if since else {}
        asked |= {"aggregateId": aggregate_id} if aggregate_id else {}
        answer = await self.rest("POST", "/admin/v1/events/_search", asked)
        if isinstance(answer, ApiFailure):
            return answer
        entries = objects(answer, "events")
        found = [event for event in map(event_of, entries) if event is not None]
        if entries and not found:
            return ApiFailure("garbled", "events")
        return EventPage(tuple(sorted(found, key=lambda event: event.created_at)), len(entries) >= limit)

    # ---- the wire ----

    async def connect(self, service: str, method: str, value: Mapping[str, Any]) -> dict[str, Any] | ApiFailure:
        """Call a method of a v2 service, such as `connect("project.v2.ProjectService", "CreateProject", {...})`."""
        headers = {"connect-protocol-version": "1"}
        return await self.rest("POST", f"/zitadel.{service}/{method}", value, headers)

    async def rest(
        self, method: str, path: str, value: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any] | ApiFailure:
        """Ask for a JSON object; a refused token is replaced once where that can be done."""
        for _ in range(2):
            token = await self.credential.token()
            if isinstance(token, ApiFailure):
                return token
            sent = {**self._headers, **(headers or {}), "authorization": f"Bearer {token}"}
            try:
                answer = await self.http.send_json(method, self.base + path, value, sent)
            except Unreachable as failure:
                return ApiFailure("unreachable", str(failure))
            found = _read(answer)
            if not isinstance(found, ApiFailure) or found.kind != "unauthenticated" or not self.credential.refused():
                break
        return found


def objects(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The JSON objects in a list that protojson leaves out when it is empty."""
    found = document.get(name, [])
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def text(document: Mapping[str, Any], *names: str) -> str:
    """The first of these members that is a text, "" when none is."""
    return next((value for name in names if isinstance(value := document.get(name), str)), "")


def seconds(value: object) -> float:
    """A protojson duration ("900s"); 0 for what is none."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?s", value):
        return 0.0
    return float(value[:-1])


def number(value: object) -> int:
    """A protojson number, which may be a text; 0 for what is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def key_bytes(value: object) -> bytes | None:
    """Bytes in protojson: base64 with or without padding; None for what is none."""
    try:
        return b64decode(value + "=" * (-len(value) % 4), altchars=b"-_") if isinstance(value, str) else None
    except ValueError:
        return None


def rfc3339(at: float) -> str:
    """A time as protojson writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _segment(name: str) -> str:
    return quote(name, safe="")


def _session(entry: object) -> LoginSession | None:
    if not isinstance(entry, dict) or not (name := text(entry, "id")):
        return None
    factors = entry.get("factors")
    user = factors.get("user") if isinstance(factors, dict) else None
    ends = text(entry, "expirationDate")
    try:
        expires_at = datetime.fromisoformat(ends).timestamp() if ends else None
    except ValueError:
        return None
    return LoginSession(name, text(user, "id") if isinstance(user, dict) else "", expires_at)


def _read(answer: HttpAnswer) -> dict[str, Any] | ApiFailure:
    document = read_object(answer.body, depth=24, members=_MEMBERS) if answer.body.strip() else {}
    if answer.status in _SUCCESS:
        return document if document is not None else ApiFailure("garbled", f"status {answer.status}")
    told = document or {}
    details = objects(told, "details")
    said = " ".join(filter(None, [text(told, "message"), *(text(detail, "id", "message") for detail in details)]))
    raw = said + " " + " ".join(text(detail, "message") for detail in details)
    said = "".join(letter if letter.isprintable() else " " for letter in said)[:300] or f"status {answer.status}"
    if _BLOCKED.search(raw):
        return ApiFailure("blocked_url", said)
    if _NO_INSTANCE.search(raw):
        return ApiFailure("wrong_host", said)
    if _UNCHANGED.search(raw):
        return ApiFailure("unchanged", said)
    code = told.get("code")
    named = _KINDS.get(code) if isinstance(code, (int, str)) else None
    return ApiFailure(named or _STATUSES.get(answer.status, "unreachable"), said)
