from __future__ import annotations

from pathlib import Path

import pytest

from bench import scale
from bench.processes import BenchFailed
from gateway.adapters.redis.store import RedisStore
from gateway.config import StateStore
from tests.support.redis_server import needs_redis


@needs_redis
async def test_what_is_filled_in_is_there_and_is_weighed(tmp_path: Path) -> None:
    with scale._redis(tmp_path / "redis") as address:
        store = RedisStore(StateStore(kind="redis", address=address, timeout_ms=5_000), bytes(32), tmp_path / "epoch")
        try:
            await store.open()
            filled = await scale._fill(store, 3_000, 1_000)
            assert len(await store.sessions()) == 3_000
            assert len(await store.devices()) == 1_000
            record = await store.session(f"b_{2_999:032}")
        finally:
            await store.close()
    assert record is not None
    assert 100 < filled["bytes_per_session"] < 1_024
    assert 100 < filled["bytes_per_device"] < 1_024


def test_without_a_redis_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(BenchFailed, match="redis-server"), scale._redis(tmp_path / "redis"):
        pass
