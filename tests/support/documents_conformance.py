"""What every adapter that meets `gateway.core.ports.Documents` must do. Subclass it and give it these fixtures.

`documents` is open and empty, `other` is a second handle on the same state, as another process would have it; both
read the time from `clock`, a list of one number.
"""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.ports.documents import Document, Documents

NOW = 1_800_000_000.0
END = NOW + 60


class DocumentsConformance:
    async def test_what_was_never_put_is_none(self, documents: Documents) -> None:
        assert await documents.get("c", "k", NOW) is None
        assert await documents.take("c", "k", NOW) is None
        assert await documents.list("c", "g", NOW) == []
        assert await documents.delete("c", "k") is False

    async def test_a_document_comes_back_as_it_was_put(self, documents: Documents, other: Documents) -> None:
        await documents.overwrite("c", "k", b"\x00value", END)
        for handle in (documents, other):
            found = await handle.get("c", "k", NOW)
            assert found == Document("k", b"\x00value", found.version, END)
            assert found.version > 0

    @pytest.mark.parametrize("value", [b"", b"\x00", bytes(range(256)) * 6_000])
    async def test_every_value_is_kept(self, documents: Documents, value: bytes) -> None:
        await documents.overwrite("c", "k", value, END)
        found = await documents.take("c", "k", NOW)
        assert found is not None
        assert found.value == value

    async def test_collections_and_keys_are_apart(self, documents: Documents) -> None:
        names = [("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"), ("c", "'; DROP TABLE documents; --"), ("é", "中")]
        for collection, key in names:
            assert await documents.put(collection, key, f"{collection}|{key}".encode(), END, version=0)
        for collection, key in names:
            found = await documents.get(collection, key, NOW)
            assert found is not None
            assert found.value == f"{collection}|{key}".encode()

    async def test_every_write_makes_the_version_grow(self, documents: Documents) -> None:
        versions = []
        for value in (b"1", b"2", b"2"):
            await documents.overwrite("c", "k", value, END)
            found = await documents.get("c", "k", NOW)
            assert found is not None
            versions.append(found.version)
        assert versions == sorted(set(versions))

    async def test_whatever_is_there_is_overwritten_where_that_is_said(
        self, documents: Documents, other: Documents
    ) -> None:
        for handle, value in ((documents, b"1"), (other, b"2")):
            await handle.overwrite("c", "k", value, END)
            found = await documents.get("c", "k", NOW)
            assert found is not None
            assert found.value == value
            assert not await handle.put("c", "k", b"3", END, version=found.version - 1)

    async def test_a_write_over_a_version_needs_that_version(self, documents: Documents, other: Documents) -> None:
        assert await documents.put("c", "k", b"1", END, version=0)
        assert not await other.put("c", "k", b"2", END, version=0)
        first = await other.get("c", "k", NOW)
        assert first is not None
        assert await other.put("c", "k", b"2", END, version=first.version)
        assert not await documents.put("c", "k", b"3", END, version=first.version)
        assert not await documents.put("c", "nothing", b"3", END, version=first.version)
        now_there = await documents.get("c", "k", NOW)
        assert now_there is not None
        assert now_there.value == b"2"

    async def test_a_version_never_stands_for_a_document_that_came_later(self, documents: Documents) -> None:
        await documents.overwrite("c", "k", b"old", END)
        old = await documents.get("c", "k", NOW)
        assert old is not None
        await documents.delete("c", "k")
        await documents.put("c", "k", b"new", END, version=0)
        assert not await documents.put("c", "k", b"late", END, version=old.version)

    async def test_what_has_ended_is_not_there(self, documents: Documents, clock: list[float]) -> None:
        await documents.overwrite("c", "k", b"1", END, group="g")
        old = await documents.get("c", "k", END - 0.001)
        assert old is not None
        clock[0] = END
        assert await documents.get("c", "k", END) is None
        assert await documents.list("c", "g", END) == []
        assert not await documents.put("c", "k", b"2", END + 60, version=old.version)
        assert await documents.put("c", "k", b"2", END + 60, version=0)
        assert not await documents.put("c", "k", b"3", END + 60, version=0)

    async def test_what_has_ended_is_neither_taken_nor_deleted(self, documents: Documents, clock: list[float]) -> None:
        await documents.overwrite("c", "k", b"1", END)
        assert await documents.take("c", "k", END) is None
        await documents.overwrite("c", "k", b"1", END)
        clock[0] = END
        assert await documents.delete("c", "k") is False

    async def test_a_document_is_taken_once(self, documents: Documents, other: Documents) -> None:
        await documents.overwrite("c", "k", b"1", END)
        found = await asyncio.gather(*(handle.take("c", "k", NOW) for handle in (documents, other) * 8))
        assert [item.value for item in found if item is not None] == [b"1"]
        assert await documents.get("c", "k", NOW) is None

    async def test_of_many_first_writers_one_wins(self, documents: Documents, other: Documents) -> None:
        writes = (handle.put("c", "k", b"%d" % n, END, version=0) for n, handle in enumerate((documents, other) * 8))
        assert sum(await asyncio.gather(*writes)) == 1

    async def test_counting_by_compare_and_set_loses_nothing(self, documents: Documents, other: Documents) -> None:
        async def count(handle: Documents) -> None:
            for _ in range(10):
                while True:
                    found = await handle.get("c", "k", NOW)
                    value, version = (0, 0) if found is None else (int(found.value), found.version)
                    if await handle.put("c", "k", b"%d" % (value + 1), END, version=version):
                        break

        await asyncio.gather(*(count(handle) for handle in (documents, other) * 2))
        found = await documents.get("c", "k", NOW)
        assert found is not None
        assert found.value == b"40"

    async def test_a_deleted_document_is_gone_for_all(self, documents: Documents, other: Documents) -> None:
        await documents.overwrite("c", "k", b"1", END, group="g")
        assert await other.delete("c", "k") is True
        assert await documents.delete("c", "k") is False
        assert await documents.list("c", "g", NOW) == []

    async def test_a_group_is_listed_oldest_first(self, documents: Documents, other: Documents) -> None:
        for key in ("b", "c", "a"):
            await documents.overwrite("c", key, key.encode(), END, group="g")
        await documents.overwrite("c", "b", b"rewritten", END, group="g")
        await documents.overwrite("c", "stranger", b"", END, group="h")
        await documents.overwrite("other", "d", b"", END, group="g")
        await documents.overwrite("c", "ungrouped", b"", END)
        found = await other.list("c", "g", NOW)
        assert [item.key for item in found] == ["b", "c", "a"]
        assert found[0].value == b"rewritten"
        assert await other.list("c", "", NOW) == []

    async def test_a_document_can_change_its_group(self, documents: Documents) -> None:
        await documents.overwrite("c", "k", b"1", END, group="g")
        await documents.overwrite("c", "k", b"2", END, group="h")
        assert await documents.list("c", "g", NOW) == []
        assert [item.value for item in await documents.list("c", "h", NOW)] == [b"2"]

    async def test_a_document_may_have_no_end_worth_the_name(self, documents: Documents) -> None:
        far = 253_402_300_799.0
        await documents.overwrite("c", "k", b"1", far)
        found = await documents.get("c", "k", NOW + 9e9)
        assert found is not None
        assert found.expires_at == far
