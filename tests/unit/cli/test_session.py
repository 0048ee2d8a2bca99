"""`gateway session`, on a real store."""

from __future__ import annotations

import asyncio
import time

from gateway.config import load
from gateway.core.ports.stores import SessionRecord
from gateway.wiring import open_state
from tests.support.cli_world import Site


def test_sessions_are_listed_shown_and_revoked(here: Site) -> None:
    async def seed() -> None:
        store = (await open_state(load(here.file, environ={}))).store
        now = time.time()
        for name in ("ann", "bob"):
            await store.put_session(
                SessionRecord(f"session-of-{name}", "https://id", name, f"{name}@corp", "", now, now, now + 600)
            )
        await store.close()

    assert here.run("session", "list").exit_code == 0
    asyncio.run(seed())
    assert {entry["subject"] for entry in here.read("session", "list")} == {"ann", "bob"}
    assert [entry["subject"] for entry in here.read("session", "list", "--subject", "ann")] == ["ann"]
    assert "ann@corp" in here.run("session", "list").stdout
    assert here.read("session", "show", "session-of-ann")["identity"] == "ann@corp"
    assert here.run("session", "show", "session-of-").exit_code == 1
    assert here.run("session", "revoke", "session-of-ann", "--why", "left").exit_code == 0
    assert here.read("session", "show", "session-of-ann")["revoked_why"] == "left"
    assert "revoked" in here.run("session", "list").stdout
    assert here.run("session", "revoke", "nobody").exit_code == 1


def test_a_session_says_what_it_is_tied_to(here: Site) -> None:
    async def seed() -> None:
        state = await open_state(load(here.file, environ={}))
        now = time.time()
        for name, device in (("l_bound", "laptop"), ("l_key", "laptop"), ("l_loose", ""), ("b_program", "laptop")):
            await state.store.put_session(SessionRecord(name, "https://id", "ann", "ann", device, now, now, now + 600))
            if name.startswith("l_"):
                await state.documents.overwrite("login_session", name, b"{}", now + 600)
        await state.documents.overwrite("session", "cookie", b"{}", now + 600, group="l_key")
        await state.documents.overwrite("dbsc", "cookie", b"{}", now + 600)
        await state.store.close()

    asyncio.run(seed())
    listed = {entry["id"]: entry["bound_by"] for entry in here.read("session", "list")}
    assert listed == {"l_bound": ["device"], "l_key": ["device", "dbsc"], "l_loose": [], "b_program": None}
    assert [entry["id"] for entry in here.read("session", "list", "--device", "nobody")] == []
    assert len(here.read("session", "list", "--device", "laptop")) == 3
    shown = here.run("session", "list").stdout
    assert "device, dbsc" in shown
    assert "nothing" in shown
    assert here.read("session", "show", "l_key")["bound_by"] == ["device", "dbsc"]
