"""Browser sessions: the cookies by which a login session is used on one host. The store keeps only their digests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.core.cookies import digest
from gateway.core.ports.documents import Documents
from gateway.core.subject import Device
from gateway.identity.sessions.login_sessions import LoginSession

COLLECTION = "session"
_KEPT_S = 3_600.0


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """One cookie: a login session's use on one host. `key` is the cookie's digest; `device_id` "" is no device.

    It is good while `rotation` is that of its login session.
    """

    key: str = field(repr=False)
    login_id: str
    host: str
    device_id: str
    created_at: float
    rotation: int = 0


class BrowserSessions:
    """The cookies that are good now. The store keeps only their digests. Raises StoreDown."""

    def __init__(self, documents: Documents, clock: Callable[[], float], random: Callable[[], str]) -> None:
        self._documents = documents
        self._clock = clock
        self._random = random

    async def open(self, login: LoginSession, host: str, device: Device | None) -> str:
        """A new cookie value for the use of `login` on `host`."""
        value = self._random()
        document = {
            "login_id": login.id,
            "host": host,
            "device_id": "" if device is None else device.id,
            "created_at": self._clock(),
            "rotation": login.rotation,
        }
        await self._documents.put(
            COLLECTION,
            digest(value),
            json.dumps(document).encode(),
            login.ends_at + _KEPT_S,
            version=0,
            group=login.id,
        )
        return value

    async def find(self, value: str) -> BrowserSession | None:
        """The session of a cookie value; None when it is none (any more)."""
        return await self.at(digest(value))

    async def at(self, key: str) -> BrowserSession | None:
        """The session with this key; None when it is none (any more)."""
        document = await self._documents.get(COLLECTION, key, self._clock())
        return None if document is None else BrowserSession(key, **json.loads(document.value))

    async def close(self, value: str) -> bool:
        """A cookie is good no more; whether it was."""
        return await self._documents.delete(COLLECTION, digest(value))

    async def rotate(self, value: str, login: LoginSession, host: str, device: Device | None) -> str:
        """A new value in place of `value`, as after every change of what a session may do (fixation)."""
        fresh = await self.open(login, host, device)
        await self.close(value)
        return fresh
