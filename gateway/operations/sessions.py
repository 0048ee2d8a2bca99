"""What an operator can do to sessions: list them, see what they are bound to, revoke them. No printing here."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.config import Config
from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import SessionRecord
from gateway.identity.sessions.browser_sessions import COLLECTION as COOKIES
from gateway.identity.sessions.dbsc import COLLECTION as KEYS
from gateway.identity.sessions.login_sessions import SESSIONS as LOGINS
from gateway.operations.lookup import pick_session
from gateway.operations.opened_state import opened


async def list_sessions(config: Config, subject: str | None = None) -> Sequence[SessionRecord]:
    """Unexpired sessions, newest first, of one subject or of all."""
    async with opened(config) as state:
        return await state.store.sessions(subject)


async def find_session(config: Config, wanted: str) -> SessionRecord:
    """One session by its id or the start of it."""
    return pick_session(await list_sessions(config), wanted)


async def bindings(config: Config, records: Sequence[SessionRecord]) -> dict[str, list[str] | None]:
    """What each of these sessions is tied to, by its id: "device", "dbsc"; None where each token says that anew."""
    async with opened(config) as state:
        return {record.id: await _bound_by(state.documents, record) for record in records}


async def _bound_by(documents: Documents, record: SessionRecord) -> list[str] | None:
    now = time.time()
    if await documents.get(LOGINS, record.id, now) is None:
        return None
    bound_by = ["device"] if record.device_id else []
    for cookie in await documents.list(COOKIES, record.id, now):
        if await documents.get(KEYS, cookie.key, now) is not None:
            return [*bound_by, "dbsc"]
    return bound_by


async def revoke_session(config: Config, wanted: str, why: str) -> SessionRecord:
    """End a session; its record afterwards."""
    async with opened(config) as state:
        record = pick_session(await state.store.sessions(), wanted)
        await state.store.revoke_session(record.id, time.time(), why)
        return await state.store.session(record.id) or record
