"""The Redis that several gateways share: how it is opened, judged, asked and closed.

Laws: only a master that keeps what it acknowledges is used (append-only file, no eviction). The store has an epoch, a
random name given at its first start. A gateway that knew another epoch, or a later change than the newest, refuses
everything (`StoreLost`): what was revoked may be forgotten there. The epoch is signed with the master key, so a gateway
with another key never begins to write.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.adapters.redis import scripts as lua
from gateway.adapters.redis.batching import BatchedConnection
from gateway.adapters.redis.connection import Address, BadReply, Command, Dialer, RedisConnection
from gateway.adapters.sealing import Seal
from gateway.config import StateStore
from gateway.core.ports.stores import StoreDown, StoreLost

_PULSE_S = 0.5
_WRITE_PATIENCE_S = 5.0
_REPLICAS_SHARE = 0.5  # of the time of an exchange: the server looks at its own clock every 100 ms
_LIST_TIMES = 8
_GREETING: tuple[Command, ...] = (
    ("INFO", "replication"),
    ("INFO", "persistence"),
    ("INFO", "memory"),
    ("GET", lua.EPOCH),
    ("GET", lua.SEQUENCE),
    *(("SCRIPT", "LOAD", script) for script in lua.ALL),
)


class Weakness(NamedTuple):
    """Something that an operator should know of a store that can be used, and what would help."""

    what: str
    fix: str


class RedisServer:
    """An open store with the seal of its values. `open` it first, `close` it at the end.

    `anchor` is the file in which this machine remembers the store's epoch. Everything raises StoreDown.
    """

    def __init__(
        self, settings: StateStore, master_key: bytes, anchor: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self.seal = Seal(master_key)
        self.clock = clock
        self._hiding = hmac.digest(master_key, b"gateway/v1/store-names", "sha256")
        self.replicas = settings.replicas
        self._settings = settings
        self._dialer = Dialer(settings)
        self._anchor = anchor
        self._address: Address | None = None
        self._epoch: bytes | None = None
        self._newest = 0
        self._flaw: StoreDown | None = None
        self._pulse: asyncio.Task[None] | None = None
        timeout_s = settings.timeout_ms / 1000
        epoch: Command = ("GET", lua.EPOCH)
        replicas: Command = ("WAIT", settings.replicas, int(settings.timeout_ms * _REPLICAS_SHARE))
        waits = (replicas,) if settings.replicas else ()
        self._reads = BatchedConnection(
            self._dial, self._judge, [epoch], timeout_s=timeout_s, patience_s=timeout_s, again=True
        )
        self._lists = BatchedConnection(
            self._dial,
            self._judge,
            [epoch],
            timeout_s=timeout_s * _LIST_TIMES,
            patience_s=timeout_s * _LIST_TIMES,
            again=True,
        )
        self._writes = BatchedConnection(
            self._dial,
            self._judge_write,
            [*waits, epoch],
            timeout_s=timeout_s,
            patience_s=_WRITE_PATIENCE_S,
            again=False,
        )

    # ---- asking ----

    async def read(self, *command: bytes | str | float) -> Any:
        """The reply to a command that changes nothing."""
        self._refuse_if_flawed()
        return await self._reads.ask(*command)

    async def listed(self, *command: bytes | str | float) -> Any:
        """The reply to a command whose answer may be long; it holds nobody else up."""
        self._refuse_if_flawed()
        return await self._lists.ask(*command)

    async def write(self, *command: bytes | str | float) -> Any:
        """The reply to a command, durable on as many machines as configured."""
        self._refuse_if_flawed(to_write=True)
        return await self._writes.ask(*command)

    async def run(self, script: str, keys: Sequence[bytes], *values: bytes | str | float) -> Any:
        """What a script that writes answers."""
        return await self.write("EVALSHA", lua.NAMES[script], len(keys), *keys, *values)

    async def look(self, script: str, keys: Sequence[bytes], *values: bytes | str | float) -> Any:
        """What a script that only reads answers."""
        return await self.read("EVALSHA", lua.NAMES[script], len(keys), *keys, *values)

    async def subscription(self, channel: bytes) -> RedisConnection:
        """A connection that hears what is published; the caller closes it."""
        async with asyncio.timeout(self._settings.timeout_ms / 1000):
            wire = await self._dial()
            [reply] = await wire.exchange([("SUBSCRIBE", channel)])
        if isinstance(reply, BadReply):
            await wire.close()
            raise StoreDown(f"redis: {reply.text}")
        return wire

    def hidden(self, *parts: str) -> bytes:
        """16 bytes that stand for a name in a key, and say nothing of it without the master key."""
        texts = [part.encode("utf-8", "surrogatepass") for part in parts]
        name = b"".join(len(text).to_bytes(4) + text for text in texts)
        return hmac.digest(self._hiding, name, "sha256")[:16]

    def acknowledged(self, sequence: int) -> None:
        """Remember that the change of this number must never be lost."""
        self._newest = max(self._newest, sequence)

    def unsealed(self, purpose: str, name: str, sealed: bytes) -> bytes:
        """A sealed value, opened. Raises StoreDown when it does not open."""
        try:
            return self.seal.unseal(purpose, name, sealed)
        except ValueError as error:
            raise StoreDown(str(error)) from error

    # ---- opening and closing ----

    async def open(self) -> None:
        """Find the store and make sure that it is the one this machine knows; a first start gives it its epoch."""
        epoch = await self._find()
        if epoch is None:
            await self._writes.ask("SET", lua.EPOCH, self._signed(secrets.token_hex(16).encode()), "NX")
            epoch = await self._find()
        if epoch is None:
            raise StoreDown("redis: the store has no epoch")
        if _anchored(self._anchor) is None:
            _write_anchor(self._anchor, epoch)
        self._epoch = epoch
        if self._settings.sentinel is not None or self.replicas:
            self._pulse = asyncio.create_task(self._feel_pulse())

    async def _find(self) -> bytes | None:
        """The store's epoch, None for a store that has not begun; nothing is changed. Raises StoreDown."""
        known = _anchored(self._anchor)
        epoch: bytes | None = await self._reads.ask("GET", lua.EPOCH)
        if known is not None and epoch != known:
            raise self._lost("it is empty" if epoch is None else "it is another store")
        if epoch is not None and not hmac.compare_digest(epoch, self._signed(epoch.partition(b".")[0])):
            raise StoreDown("redis: the store was begun with another master key than this machine's")
        return epoch

    def _signed(self, name: bytes) -> bytes:
        return name + b"." + hmac.digest(self._hiding, b"epoch|" + name, "sha256").hex().encode()

    async def ping(self) -> None:
        """Raise StoreDown unless the store can be read and written."""
        await self.write("SET", lua.PULSE, repr(self.clock()))
        await self.read("GET", lua.PULSE)

    async def inspect(self) -> Sequence[Weakness]:
        """Look at a store that was not opened: it can be found, read, heard and written, and it is the known one.

        Nothing but the pulse is written. Raises StoreDown.
        """
        await self._find()
        await self._reads.ask("EVALSHA", lua.NAMES[lua.LATEST], 0)
        await self.ping()
        await self.write("PUBLISH", lua.CHANNEL, "")
        await (await self.subscription(lua.CHANNEL)).close()
        return await self.weaknesses()

    async def weaknesses(self) -> Sequence[Weakness]:
        """Ways in which an acknowledged write could still be lost."""
        weaknesses = []
        try:
            reply = await self._lists.ask("CONFIG", "GET", "appendfsync")
        except StoreDown:
            reply = None
        if reply is None:
            message = "Whether Redis has `appendfsync always` cannot be seen: this user may not ask, as it should be."
            weaknesses.append(Weakness(message, "Make sure of it in redis.conf."))
        else:
            message = "This Redis user may change the server and forget everything."
            weaknesses.append(Weakness(message, "Give the gateway the ACL user of docs/several-machines.md."))
            if reply != [b"appendfsync", b"always"]:
                message = "Up to two seconds of acknowledged revocations are lost when Redis crashes."
                weaknesses.append(Weakness(message, "Write `appendfsync always` in redis.conf."))
        if not self.replicas:
            message = "No replica is waited for: a lost disk loses every revocation."
            weaknesses.append(Weakness(message, "Add two replicas, and write `replicas: 1` here."))
        return weaknesses

    async def close(self) -> None:
        """Close the connections."""
        if self._pulse is not None:
            self._pulse.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pulse
        for lane in self._lanes:
            await lane.close()

    # ---- judging ----

    @property
    def _lanes(self) -> tuple[BatchedConnection, ...]:
        return self._reads, self._lists, self._writes

    def _refuse_if_flawed(self, *, to_write: bool = False) -> None:
        flaw = self._flaw
        if self._pulse is not None and self._pulse.done():
            raise StoreDown("redis: nobody looks after the connection any more")
        if flaw is not None and (not to_write or isinstance(flaw, StoreLost)):
            raise type(flaw)(str(flaw))

    async def _dial(self) -> RedisConnection:
        """A connection to the master, which was greeted and found good."""
        address = await self._dialer.master()
        async with contextlib.AsyncExitStack() as undo:
            wire = await self._dialer.dial(address)
            undo.push_async_callback(wire.close)
            replication, persistence, memory, epoch, newest, *loaded = await wire.exchange(_GREETING)
            for reply in (replication, persistence, memory, epoch, newest, *loaded):
                if isinstance(reply, BadReply):
                    raise StoreDown(f"redis: {reply.text}")
            _demand(replication, b"role", b"master", "this server is a replica, and only a master knows the latest")
            _demand(persistence, b"aof_enabled", b"1", "`appendonly yes` is needed, or a restart forgets revocations")
            if _facts(memory).get(b"maxmemory") != b"0":
                _demand(memory, b"maxmemory_policy", b"noeviction", "`maxmemory-policy noeviction` is needed")
            self._judge([epoch])
            if int(newest or 0) < self._newest:
                raise self._lost(f"change {self._newest} was acknowledged, and it ends with {int(newest or 0)}")
            self._address = address
            undo.pop_all()
        return wire

    def _judge(self, replies: Sequence[Any]) -> None:
        """Raise StoreLost unless the epoch, which comes last, is the one that is known."""
        if self._epoch is not None and replies[-1] != self._epoch:
            if isinstance(replies[-1], BadReply):
                raise StoreDown(f"redis: {replies[-1].text}")
            raise self._lost("it is empty" if replies[-1] is None else "it is another store")

    def _judge_write(self, replies: Sequence[Any]) -> None:
        """Raise StoreDown unless enough replicas have what was written."""
        self._judge(replies)
        if self.replicas and not (isinstance(replies[0], int) and replies[0] >= self.replicas):
            raise StoreDown("redis: too few replicas have what was written")

    def _lost(self, why: str) -> StoreLost:
        message = f"redis: the store is not what it was: {why}. {self._anchor} says how to go on"
        return StoreLost(message)

    async def _feel_pulse(self) -> None:
        """Find out by itself that the master moved, or was cut off from its replicas: then reads are refused too."""
        while True:
            await asyncio.sleep(_PULSE_S)
            try:
                if self._settings.sentinel is not None:
                    async with asyncio.timeout(self._settings.timeout_ms / 1000):
                        moved = await self._dialer.master() != self._address
                    if moved:
                        for lane in self._lanes:
                            await lane.hang_up()
                await self._writes.ask("SET", lua.PULSE, repr(self.clock()))
                self._flaw = None
            except TimeoutError:
                self._flaw = StoreDown("redis: no Sentinel answers")
            except StoreDown as error:
                self._flaw = error


def _facts(info: Any) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in info.splitlines()) if isinstance(info, bytes) else ()
    return {name: value.strip() for name, _, value in lines}


def _demand(info: Any, name: bytes, value: bytes, message: str) -> None:
    if _facts(info).get(name) != value:
        raise StoreDown(f"redis: {message}")


_ADVICE = """
# The name of the Redis store that this gateway has seen last. When the store is another one, or empty, nothing is
# served: sessions and devices that were revoked would be forgotten. Restore the store. To go on with a new, empty one,
# end every login at the identity provider, revoke devices again, remove this file on each machine and restart.
"""


def _anchored(path: Path) -> bytes | None:
    """The epoch that this machine knows. Raises StoreDown for a file that cannot be read."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreDown(f"{path}: {error.strerror}") from None
    return text.partition(b"\n")[0].strip()


def _write_anchor(path: Path, epoch: bytes) -> None:
    """Remember an epoch; whoever starts at the same time writes the same."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(epoch + _ADVICE.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreDown(f"{path}: {error.strerror}") from None
