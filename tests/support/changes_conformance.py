"""What every adapter that meets `gateway.core.ports.Changes` must do. Subclass it and give it a `store` fixture.

`store` is open and empty, and a whole `Store`; `other` is a second handle on the same state, as another process would
have it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from gateway.core.ports.stores import Change, Store
from gateway.core.subject import subject_key
from tests.support.store_conformance import DEVICE, NOW, SESSION


class ChangesConformance:
    async def test_before_the_first_change_there_is_none(self, store: Store) -> None:
        assert await store.latest() == 0
        assert await store.changes(0) == []

    async def test_changes_are_numbered_from_one_without_a_gap(self, store: Store, other: Store) -> None:
        key = subject_key("https://id", "é中\U0001f512")
        await store.announce("subject", key)
        await other.announce("all", "")
        await store.announce("session", "b_1")
        expected = [Change(1, "subject", key), Change(2, "all", ""), Change(3, "session", "b_1")]
        assert await store.changes(0) == expected
        assert await other.changes(0) == expected
        assert await other.changes(2) == expected[2:]
        assert await other.changes(3) == []
        assert await other.latest() == 3

    async def test_a_revocation_announces_itself(self, store: Store, other: Store) -> None:
        await store.put_session(SESSION)
        before = await other.latest()
        await store.revoke_session("b_1", NOW, "left")
        await store.revoke_session("b_unknown", NOW, "left")
        found = await other.changes(before)
        assert found is not None
        assert [(change.kind, change.key) for change in found] == [("session", "b_1"), ("session", "b_unknown")]

    async def test_a_session_that_is_only_seen_announces_nothing(self, store: Store) -> None:
        await store.put_session(SESSION)
        await store.put_session(replace(SESSION, last_seen_at=NOW + 9))
        assert await store.latest() == 0

    async def test_a_device_that_changes_announces_itself(self, store: Store, other: Store) -> None:
        await store.add_device(DEVICE)
        before = await other.latest()
        await store.change_device(DEVICE.id, lambda record: record.revoke(NOW, "stolen"))
        found = await other.changes(before)
        assert found is not None
        assert [(change.kind, change.key) for change in found] == [("device", "d1")]

    async def test_what_a_change_tells_of_is_there_when_it_is_read(self, store: Store, other: Store) -> None:
        for number in range(20):
            name = f"b_{number}"
            await store.put_session(replace(SESSION, id=name))
            revoking = asyncio.create_task(store.revoke_session(name, NOW, "left"))
            while not (found := await other.changes(number)):
                await other.wait(number, 1.0)
            record = await other.session(found[0].key)
            assert record is not None
            assert record.revoked_at == NOW
            await revoking

    async def test_a_number_that_was_never_given_means_that_everything_changed(self, store: Store) -> None:
        await store.announce("all", "")
        assert await store.changes(2) is None

    async def test_announcements_at_the_same_time_are_all_there(self, store: Store, other: Store) -> None:
        await asyncio.gather(*((store, other)[n % 2].announce("session", f"b_{n}") for n in range(200)))
        found = await store.changes(0)
        assert found is not None
        assert [change.seq for change in found] == list(range(1, 201))
        assert {change.key for change in found} == {f"b_{n}" for n in range(200)}

    async def test_waiting_ends_soon_after_a_change_elsewhere(self, store: Store, other: Store) -> None:
        await other.wait(0, 0.05)
        for number in range(5):
            waiting = asyncio.create_task(other.wait(number, 10.0))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            started = time.monotonic()
            await store.announce("all", "")
            await waiting
            assert time.monotonic() - started < 2

    async def test_waiting_ends_at_once_when_there_is_news(self, store: Store) -> None:
        await store.announce("all", "")
        started = time.monotonic()
        await store.wait(0, 10.0)
        assert time.monotonic() - started < 5

    async def test_waiting_ends_when_the_time_is_over(self, store: Store) -> None:
        started = time.monotonic()
        await store.wait(0, 0.2)
        assert 0.15 < time.monotonic() - started < 2

    async def test_several_wait_at_the_same_time(self, store: Store, other: Store) -> None:
        waiting = [asyncio.create_task(store.wait(0, 10.0)) for _ in range(10)]
        await asyncio.sleep(0.05)
        await other.announce("all", "")
        await asyncio.wait_for(asyncio.gather(*waiting), 2)
