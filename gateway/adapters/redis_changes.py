"""What changed, for every gateway of a Redis: a numbered stream, and a shout whenever it grows.

Laws: a change is numbered and written in the step that makes it. A shout that was missed costs a fifth of a second: the
newest number is looked at anyway. What a change is about is sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from gateway.adapters import redis_scripts as lua
from gateway.adapters.redis_server import RedisServer
from gateway.core.ports import Change, StoreDown

_LOOK_S = 0.2
_AT_ONCE = 1_000
_PURPOSE, _NAME = "changes", "key"


class RedisChanges(RedisServer):
    """Meets `gateway.core.ports.Changes`."""

    _ears: asyncio.Task[None] | None = None
    _heard: int = 0
    _shout: asyncio.Event | None = None

    async def announce(self, kind: str, key: str) -> None:
        """Tell every follower that something changed."""
        await self.run(lua.ANNOUNCE, [], kind, self.change_name(key), repr(self.clock()))

    async def latest(self) -> int:
        """The number of the last change, 0 before the first."""
        latest = int(await self.read("GET", lua.SEQUENCE) or 0)
        self.noticed(latest)
        return latest

    async def changes(self, after: int) -> Sequence[Change] | None:
        """Every change after number `after`, oldest first; None when some are forgotten or the store began anew."""
        found: list[Change] = []
        while True:
            rows = await self.look(lua.CHANGES, [lua.SEQUENCE, lua.STREAM], after + len(found), _AT_ONCE)
            if rows is None:
                return None
            found += [self._change(row) for row in rows]
            if found:
                self.noticed(found[-1].seq)
            if len(rows) < _AT_ONCE:
                return found

    async def wait(self, after: int, timeout_s: float) -> None:
        """Return when there may be changes after number `after`, or after `timeout_s`."""
        shout = self._listen()
        until = asyncio.get_running_loop().time() + timeout_s
        while self._heard <= after:
            shout.clear()
            if await self.latest() != after:
                return
            left_s = until - asyncio.get_running_loop().time()
            if left_s <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(shout.wait(), min(left_s, _LOOK_S))

    async def close(self) -> None:
        """Stop listening, and close."""
        if self._ears is not None:
            self._ears.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ears
        await super().close()

    def change_name(self, key: str) -> bytes:
        """What a change is about, as it travels."""
        return self.seal.close(_PURPOSE, _NAME, key.encode("utf-8", "surrogatepass"))

    def _change(self, row: Sequence[object]) -> Change:
        match row:
            case [bytes() as number, [_, bytes() as kind, _, bytes() as sealed, *_]]:
                key = self.opened(_PURPOSE, _NAME, sealed).decode("utf-8", "surrogatepass")
                return Change(int(number.partition(b"-")[0]), kind.decode(), key)
        raise StoreDown("redis: a change that nobody can read")

    def _listen(self) -> asyncio.Event:
        """What is set at every shout; several may wait for it."""
        if self._shout is None or self._ears is None or self._ears.done():
            self._shout = asyncio.Event()
            self._ears = asyncio.create_task(self._hear(self._shout))
        return self._shout

    async def _hear(self, shout: asyncio.Event) -> None:
        """Listen for ever; without a connection the looks of `wait` have to do."""
        while True:
            with contextlib.suppress(StoreDown, TimeoutError):
                wire = await self.subscription(lua.CHANNEL)
                try:
                    shout.set()  # something may have been missed until now
                    while True:
                        self._take(await wire.message())
                        shout.set()
                finally:
                    await wire.close()
            await asyncio.sleep(_LOOK_S)

    def _take(self, message: object) -> None:
        match message:
            case [b"message", _, bytes() as number] if number.isdigit():
                self._heard = max(self._heard, int(number))
