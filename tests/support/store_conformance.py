"""What every adapter that meets `gateway.core.ports.Store` must do. Subclass it and give it a `store` fixture.

`store` is open and empty. `other` is a second handle on the same state, as another process would have it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.core.ports.stores import DeviceChange, DeviceRecord, IssuedCertificate, SessionRecord, Store
from tests.support.clock import NOW

LIFE_S = 86_400.0  # of a session: real stores look at their own clock
DEVICE = DeviceRecord("d1", "laptop", "ada", "it", "active", NOW, NOW + 1, posture={"disk": {"encrypted": True}})
SESSION = SessionRecord("b_1", "https://id", "ada", "ada@example", "d1", NOW, NOW, NOW + LIFE_S)


class StoreConformance:
    # ---- devices ----

    async def test_an_unknown_device_is_none(self, store: Store) -> None:
        assert await store.device("nobody") is None

    async def test_a_device_comes_back_as_it_was_put(self, store: Store, other: Store) -> None:
        await store.add_device(DEVICE)
        assert await store.device("d1") == DEVICE
        assert await other.device("d1") == DEVICE

    async def test_a_device_is_added_once_and_never_replaced(self, store: Store, other: Store) -> None:
        assert await store.add_device(DEVICE) is True
        assert await other.add_device(replace(DEVICE, name="desktop", posture={})) is False
        assert await store.device("d1") == DEVICE
        added = await asyncio.gather(*(handle.add_device(replace(DEVICE, id="d2")) for handle in (store, other) * 5))
        assert sorted(added) == [False] * 9 + [True]

    async def test_a_device_is_changed_as_it_is_at_that_moment(self, store: Store, other: Store) -> None:
        await store.add_device(DEVICE)
        changed = replace(DEVICE, name="desktop", posture={})
        assert await other.change_device("d1", lambda _: changed) == changed
        assert await store.change_device("d1", lambda record: replace(record, owner="bob")) == replace(
            changed, owner="bob"
        )
        assert await other.device("d1") == replace(changed, owner="bob")

    async def test_an_unknown_device_is_not_changed(self, store: Store) -> None:
        assert await store.change_device("nobody", lambda record: record.revoke(NOW, "stolen")) is None
        assert await store.devices() == []

    async def test_a_change_that_leaves_a_device_as_it_is_writes_and_announces_nothing(self, store: Store) -> None:
        await store.add_device(DEVICE)
        before = await store.latest()
        assert await store.change_device("d1", lambda _: None) == DEVICE
        assert await store.change_device("d1", lambda record: record) == DEVICE
        assert await store.latest() == before

    async def test_a_revoked_device_never_comes_back(self, store: Store, other: Store) -> None:
        await store.add_device(DEVICE)
        revoked = await other.change_device("d1", lambda record: record.revoke(NOW + 5, "stolen"))
        assert revoked == replace(DEVICE, status="revoked", revoked_at=NOW + 5, revoked_why="stolen")
        again = await store.change_device("d1", lambda record: record.revoke(NOW + 9, "lost"))
        assert again == revoked
        for undone in (DEVICE, replace(DEVICE, status="revoked", revoked_at=NOW + 9)):
            with pytest.raises(ValueError, match="final"):
                await store.change_device("d1", lambda _, undone=undone: undone)  # type: ignore[misc]
        with pytest.raises(ValueError, match="id"):
            await store.change_device("d1", lambda record: replace(record, id="d2"))
        assert await store.add_device(DEVICE) is False
        assert await other.device("d1") == revoked

    async def test_changes_of_one_device_at_the_same_moment_all_count(self, store: Store, other: Store) -> None:
        await store.add_device(DEVICE)

        def measured(name: str) -> DeviceChange:
            return lambda record: replace(record, posture={**record.posture, name: True})

        changes = [handle.change_device("d1", measured(f"m{at}")) for at, handle in enumerate((store, other) * 10)]
        revoking = other.change_device("d1", lambda record: record.revoke(NOW + 5, "stolen"))
        await asyncio.gather(*changes[:10], revoking, *changes[10:])
        record = await store.device("d1")
        assert record is not None
        assert record.posture == {**DEVICE.posture, **{f"m{at}": True for at in range(20)}}
        assert (record.status, record.revoked_why) == ("revoked", "stolen")

    async def test_devices_are_listed_newest_first(self, store: Store) -> None:
        for at in (2, 1, 3):
            await store.add_device(replace(DEVICE, id=f"d{at}", created_at=NOW + at))
        assert [record.id for record in await store.devices()] == ["d3", "d2", "d1"]

    async def test_awkward_text_is_kept(self, store: Store) -> None:
        record = replace(
            DEVICE, name="O'Hara; DROP TABLE devices; --", owner="\u00e9\u4e2d\U0001f512", posture={"\u00fc": None}
        )
        await store.add_device(record)
        assert await store.device("d1") == record

    # ---- enrolment tokens ----

    async def test_a_token_is_taken_once(self, store: Store, other: Store) -> None:
        await store.add_enrolment("aa", "d1", NOW + 6_000)
        assert await other.take_enrolment("aa", NOW) == "d1"
        assert await store.take_enrolment("aa", NOW) is None

    async def test_an_unknown_or_expired_token_is_none(self, store: Store) -> None:
        await store.add_enrolment("aa", "d1", NOW + 6_000)
        assert await store.take_enrolment("bb", NOW) is None
        assert await store.take_enrolment("aa", NOW + 6_000) is None

    async def test_of_many_takers_one_wins(self, store: Store, other: Store) -> None:
        await store.add_enrolment("aa", "d1", NOW + 6_000)
        taken = await asyncio.gather(*(handle.take_enrolment("aa", NOW) for handle in (store, other) * 10))
        assert sorted(map(str, taken)) == ["None"] * 19 + ["d1"]

    # ---- certificates ----

    async def test_only_unexpired_certificates_of_revoked_devices_are_listed(self, store: Store) -> None:
        await store.add_device(DEVICE)
        await store.add_device(replace(DEVICE, id="d2"))
        good = IssuedCertificate("0a", "d1", NOW, NOW + 9_000)
        short = IssuedCertificate("0b", "d1", NOW, NOW + 6_000)
        await store.add_certificate(good)
        await store.add_certificate(short)
        await store.add_certificate(IssuedCertificate("0c", "d2", NOW, NOW + 9_000))
        assert await store.revoked_certificates(NOW) == []
        await store.change_device(DEVICE.id, lambda record: record.revoke(NOW + 5, "stolen"))
        assert await store.revoked_certificates(NOW + 10) == [(good, NOW + 5), (short, NOW + 5)]
        assert await store.revoked_certificates(NOW + 6_000) == [(good, NOW + 5)]

    # ---- sessions ----

    async def test_an_unknown_session_is_none(self, store: Store) -> None:
        assert await store.session("b_0") is None

    async def test_a_session_comes_back_and_is_refreshed(self, store: Store, other: Store) -> None:
        await store.put_session(SESSION)
        await other.put_session(
            replace(SESSION, last_seen_at=NOW + 9, expires_at=NOW + LIFE_S + 300, created_at=NOW + 9, subject="x")
        )
        assert await store.session("b_1") == replace(SESSION, last_seen_at=NOW + 9, expires_at=NOW + LIFE_S + 300)

    async def test_a_refresh_never_shortens_a_session(self, store: Store) -> None:
        await store.put_session(SESSION)
        await store.put_session(replace(SESSION, last_seen_at=NOW - 9, expires_at=NOW + 1))
        assert await store.session("b_1") == SESSION

    async def test_a_revocation_is_never_cleared(self, store: Store, other: Store) -> None:
        await store.put_session(SESSION)
        assert await other.revoke_session("b_1", NOW + 5, "left") is True
        await store.put_session(replace(SESSION, expires_at=NOW + LIFE_S + 300))
        assert await store.revoke_session("b_1", NOW + 6, "again") is True
        record = await store.session("b_1")
        assert record == replace(SESSION, expires_at=NOW + LIFE_S + 300, revoked_at=NOW + 5, revoked_why="left")

    async def test_a_revocation_outlives_the_session(self, store: Store) -> None:
        await store.put_session(replace(SESSION, expires_at=NOW - 1))
        await store.revoke_session("b_1", NOW - 5, "left")
        await store.put_session(replace(SESSION, id="b_2"))
        record = await store.session("b_1")
        assert record is not None
        assert record.revoked_at == NOW - 5

    async def test_an_unknown_session_cannot_be_revoked(self, store: Store) -> None:
        assert await store.revoke_session("b_0", NOW, "why") is False

    async def test_unexpired_sessions_are_listed_newest_first(self, store: Store) -> None:
        await store.put_session(replace(SESSION, id="old", expires_at=NOW - 1))
        await store.put_session(SESSION)
        await store.put_session(replace(SESSION, id="b_2", subject="bob", created_at=NOW + 1))
        assert [record.id for record in await store.sessions()] == ["b_2", "b_1"]
        assert [record.id for record in await store.sessions("ada")] == ["b_1"]

    # ---- things used once ----

    async def test_a_key_is_used_once_until_it_expires(self, store: Store, other: Store) -> None:
        assert await store.first_use("jti", NOW, NOW + 6_000) is True
        assert await other.first_use("jti", NOW + 5_999, NOW + 60_000) is False
        assert await other.first_use("jti", NOW + 6_000, NOW + 12_000) is True
        assert await store.first_use("jti", NOW + 6_001, NOW + 12_000) is False

    async def test_of_many_users_one_is_first(self, store: Store, other: Store) -> None:
        firsts = await asyncio.gather(*(handle.first_use("k", NOW, NOW + 6_000) for handle in (store, other) * 10))
        assert firsts.count(True) == 1

    # ---- secrets ----

    async def test_secrets_are_kept_by_purpose_newest_first(self, store: Store, other: Store) -> None:
        assert await store.put_secret("sign", "a", NOW, b"one") is True
        assert await store.put_secret("sign", "b", NOW + 1, b"two") is True
        assert await store.put_secret("seal", "a", NOW, b"") is True
        assert await other.secrets("sign") == [("b", NOW + 1, b"two"), ("a", NOW, b"one")]
        assert await other.secrets("seal") == [("a", NOW, b"")]
        assert await other.secrets("none") == []

    async def test_a_secret_is_never_overwritten(self, store: Store, other: Store) -> None:
        results = await asyncio.gather(store.put_secret("p", "n", NOW, b"1"), other.put_secret("p", "n", NOW, b"2"))
        assert sorted(results) == [False, True]
        assert len(await store.secrets("p")) == 1

    async def test_a_dropped_secret_is_gone(self, store: Store) -> None:
        await store.put_secret("p", "n", NOW, b"1")
        await store.drop_secret("p", "n")
        await store.drop_secret("p", "n")
        assert await store.secrets("p") == []

    # ---- the store itself ----

    async def test_a_healthy_store_answers_ping(self, store: Store, other: Store) -> None:
        await store.ping()
        await other.ping()
