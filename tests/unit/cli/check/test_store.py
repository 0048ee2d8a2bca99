"""`gateway check` looks at a real Redis: what would stop the gateway is a problem, what could be lost a warning."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.cli.check.report import Report, examine
from gateway.config import Problem, load
from gateway.wiring import open_state
from tests.support.cli_world import change, line_of
from tests.support.redis_server import RedisProcess, free_port, needs_redis, running

pytestmark = needs_redis
USER = "user gateway on >swordfish ~gw:* &gw:* -@all +@connection +@read +@write -@dangerous"
USER += " +evalsha +script|load +publish +subscribe +wait +info"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(process: RedisProcess) -> RedisProcess:
    process.cli("FLUSHALL")
    process.cli("CONFIG", "SET", "appendonly", "yes")
    return process


@pytest.fixture
def shared(site: Path, server: RedisProcess) -> Path:
    named(site, server.address)
    return site


def named(site: Path, address: str, more: str = "") -> None:
    section = f'store: {{kind: redis, address: "{address}"{more}}}\n'
    change(site, lambda text: text + section)


async def look(site: Path, *, offline: bool = False) -> Report:
    return await examine(site / "gateway.yaml", environ={}, offline=offline)


async def only(site: Path) -> Problem:
    found = [problem for problem in (await look(site)).problems if problem.key.startswith("store")]
    assert len(found) == 1
    assert found[0].line == line_of(site, "store:")
    return found[0]


@contextlib.asynccontextmanager
async def begun(site: Path) -> AsyncIterator[None]:
    """A gateway was here."""
    state = await open_state(load(site / "gateway.yaml", environ={}))
    try:
        yield
    finally:
        await state.store.close()


async def test_a_store_that_can_be_used_is_no_problem_and_what_it_may_lose_a_warning(shared: Path) -> None:
    report = await look(shared)
    assert report.problems == []
    fixes = [found.fix for found in report.warnings if found.key == "store"]
    assert [fix[:8] for fix in fixes] == ["Give the", "Add two "]
    async with begun(shared):
        assert (await look(shared)).problems == []


async def test_a_store_that_cannot_be_reached_is_found_and_offline_does_not_ask(site: Path) -> None:
    named(site, f"127.0.0.1:{free_port()}")
    assert "Start Redis" in (await only(site)).fix
    assert (await look(site, offline=True)).problems == []


async def test_a_store_that_forgets_at_a_restart_is_found(shared: Path, server: RedisProcess) -> None:
    server.cli("CONFIG", "SET", "appendonly", "no")
    assert "appendonly yes" in (await only(shared)).message


async def test_a_store_that_came_back_empty_is_found(shared: Path, server: RedisProcess) -> None:
    async with begun(shared):
        server.cli("FLUSHALL")
    problem = await only(shared)
    assert "it is empty" in problem.message
    assert "Restore" in problem.fix


async def test_a_machine_without_the_others_key_is_found(shared: Path) -> None:
    async with begun(shared):
        pass
    (shared / "state/master.key").unlink()
    (shared / "state/redis-store").unlink()
    assert "another master key" in (await only(shared)).message
    assert not (shared / "state/master.key").exists(), "looking makes none"


async def test_the_documented_user_may_do_all_that_is_needed(site: Path, server: RedisProcess) -> None:
    (site / "redis").write_text("swordfish")
    (site / "redis").chmod(0o600)
    server.cli("ACL", "SETUSER", *USER.split()[1:])
    named(site, server.address, ", username: gateway, password: {file: redis}")
    report = await look(site)
    assert report.problems == []
    assert [found.message[:8] for found in report.warnings if found.key == "store"] == ["Whether ", "No repli"]
    server.cli("ACL", "SETUSER", "gateway", "-publish", "-subscribe")
    assert "NoPermission" in (await only(site)).message
    server.cli("ACL", "DELUSER", "gateway")
    problem = await only(site)
    assert "swordfish" not in f"{problem.message}{problem.fix}"


async def test_a_password_that_cannot_be_read_is_told_once_at_its_place(site: Path, server: RedisProcess) -> None:
    named(site, server.address, ", password: {file: redis}")
    (site / "redis").write_text("swordfish")
    (site / "redis").chmod(0o644)
    assert [problem.key for problem in (await look(site)).problems] == ["store.password"]
