"""A WebSocket of somebody who is signed in, through real gateway processes, and everything that ends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.demo.clients import http as client
from gateway.demo.clients.headless_browser import Person
from gateway.demo.clients.http import DeviceFiles, client_context
from gateway.demo.world import ECHO, World

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("open")]
_RULE = '\nblocks contains "under_maintenance" if input.service.name == "echo"\n'


class Open:
    """Somebody's WebSocket."""

    def __init__(self, world: World, user: str, name: str) -> None:
        self.world, self.user = world, user
        self.device_id, token = world.add_device(name, user)
        _, files = client.enrol(world.port, world.pki.root, token, world.folder / name)
        assert files is not None
        self.device: DeviceFiles = files
        self.stack = contextlib.AsyncExitStack()

    async def sign_in(self) -> ClientConnection:
        """With a browser's cookie."""
        person = Person(self.world.pki.root, self.device)
        self.stack.callback(person.close)
        code = str(self.world.order("code", user=self.user)["code"])
        answer = person.sign_in(f"https://{ECHO}:{self.world.port}/headers", self.user, code=code)
        assert answer.status_code == 200, answer.text
        cookies = "; ".join(f"{name}={value}" for name, value in person.jars[ECHO].items())
        return await self._dial({"cookie": cookies, "origin": f"https://{ECHO}:{self.world.port}"})

    async def with_token(self) -> ClientConnection:
        """With an access token, as a program does it."""
        return await self._dial({"authorization": f"Bearer {self.world.token(self.user)}"})

    async def _dial(self, headers: dict[str, str]) -> ClientConnection:
        made = await self.stack.enter_async_context(
            connect(
                f"wss://{ECHO}:{self.world.port}/ws",
                host="127.0.0.1",
                ssl=client_context(self.world.pki.root, self.device),
                server_hostname=ECHO,
                additional_headers=headers,
                close_timeout=1,
                ping_interval=None,
                proxy=None,
            )
        )
        await made.send("are you there?")
        assert await asyncio.wait_for(made.recv(), 10) == "are you there?"
        return made

    def session(self) -> str:
        listed = json.loads(self.world.operator("session", "list", "--json"))
        [found] = [one["id"] for one in listed if one["device_id"] == self.device_id and not one.get("revoked_at")]
        return str(found)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(workers=2) as made:
        made.start()
        yield made


@pytest.fixture
async def opened(world: World) -> AsyncIterator[Callable[[str], Open]]:
    made: list[Open] = []

    def start(user: str) -> Open:
        made.append(Open(world, user, f"open-{user}-{len(list(world.folder.glob('open-*')))}"))
        return made[-1]

    yield start
    for one in made:
        await one.stack.aclose()


async def ended(one: ClientConnection) -> str:
    """How a connection was closed, before long."""
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(one.recv(), 3)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    return closed.value.rcvd.reason


async def test_the_operator_revokes_the_session(world: World, opened: Callable[[str], Open]) -> None:
    one = opened("alice")
    line = await one.sign_in()
    world.operator("session", "revoke", one.session(), "--why", "a test")
    assert await ended(line) == "session_revoked"


async def test_a_program_is_cut_like_a_browser(world: World, opened: Callable[[str], Open]) -> None:
    one = opened("alice")
    line = await one.with_token()
    world.operator("session", "revoke", one.session(), "--why", "a test")
    assert await ended(line) == "session_revoked"


async def test_the_device_is_revoked(world: World, opened: Callable[[str], Open]) -> None:
    one = opened("alice")
    line = await one.sign_in()
    world.operator("device", "revoke", one.device_id, "--why", "a test")
    assert await ended(line) == "device_revoked"


async def test_the_login_ends_at_the_provider(world: World, opened: Callable[[str], Open]) -> None:
    line = await opened("bob").sign_in()
    world.end_session("bob")
    assert await ended(line) == "session_revoked"


async def test_the_account_is_locked_at_the_provider(world: World, opened: Callable[[str], Open]) -> None:
    line = await opened("fay").sign_in()
    world.order("lock", user="fay")
    assert await ended(line) == "session_revoked"
    world.order("unlock", user="fay")


async def test_a_rule_is_added_on_disk(world: World, opened: Callable[[str], Open]) -> None:
    line = await opened("alice").sign_in()
    file = world.policies / "gateway" / "authz.rego"
    before = file.read_text(encoding="utf-8")
    file.write_text(before + _RULE, encoding="utf-8")
    try:
        assert await ended(line) == "under_maintenance"
    finally:
        file.write_text(before, encoding="utf-8")


async def test_what_concerns_others_leaves_it_alone(world: World, opened: Callable[[str], Open]) -> None:
    one, other = opened("alice"), opened("alice")
    line, gone = await one.sign_in(), await other.sign_in()
    world.operator("session", "revoke", other.session(), "--why", "a test")
    assert await ended(gone) == "session_revoked"
    await line.send("still there?")
    assert await asyncio.wait_for(line.recv(), 5) == "still there?"
