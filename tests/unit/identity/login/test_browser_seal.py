"""Sealing under a secret of the browser: it opens with that secret, for that purpose, unchanged."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.identity.login.browser_seal import seal, unseal


def test_a_value_opens_with_its_secret_and_purpose_alone() -> None:
    sealed = seal("secret", "held", b"value")
    assert unseal("secret", "held", sealed) == b"value"
    assert b"value" not in sealed
    assert seal("secret", "held", b"value") != sealed
    for secret, purpose, content in (
        ("other", "held", sealed),
        ("secret", "ticket", sealed),
        ("secret", "held", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        ("secret", "held", b"\x01" + sealed[1:]),
        ("secret", "held", b""),
    ):
        with pytest.raises(ValueError, match="sealed value"):
            unseal(secret, purpose, content)


async def test_what_was_taken_is_in_no_file_of_the_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "gateway.sqlite", bytes(32))
    documents = SqliteDocuments(store)
    await documents.put("held", "key", b"value", time.time() + 60, version=0)
    document = await documents.get("held", "key", time.time())
    assert document is not None
    row = store.one("SELECT sealed FROM documents WHERE key = 'key'")
    assert await documents.take("held", "key", time.time()) is not None
    await asyncio.sleep(1.1)
    await store.ping()
    await store.ping()
    assert _holding(tmp_path, row[0]) == []
    await store.close()


def _holding(folder: Path, content: bytes) -> list[str]:
    return [file.name for file in folder.iterdir() if content in file.read_bytes()]
