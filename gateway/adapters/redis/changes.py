"""What changed, for every gateway of a Redis: a numbered stream, and a shout whenever it grows.

Laws: a change is numbered and written in the step that makes it. A shout that was missed costs a fifth of a second: the
last change is looked at anyway. After a failover numbers that nobody acknowledged are given again, so the place of a
follower is a number and the sealed name of that change, which is never the same twice. What a change is about is
sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from gateway.adapters.redis import scripts as lua
from gateway.adapters.redis.server import RedisServer
from gateway.core.ports.stores import Change, StoreDown

_LOOK_S = 0.2
_AT_ONCE = 1_000
_PLACES = 256
_PURPOSE, _NAME = "changes", "key"


class RedisChanges(RedisServer):
    """Meets `gateway.core.ports.Changes`."""

    _ears: asyncio.Task[None] | None = None
    _shout: asyncio.Event | None = None

    async def open(self) -> None:
        """Open the store; nobody has a place in the stream yet."""
        self._places: dict[int, bytes] = {}
        await super().open()

    async def announce(self, kind: str, key: str) -> None:
        """Tell every follower that something changed."""
        await self.tell(lua.ANNOUNCE, [], kind, self.change_name(key), repr(self.clock()))

    async def tell(self, script: str, keys: Sequence[bytes], *values: bytes | str | float) -> bool:
        """Run a script that announces what it does; whether it did it."""
        done, number = await self.run(script, keys, *values)
        self.acknowledged(number)
        return bool(done == 1)

    async def latest(self) -> int:
        """The number of the last change, 0 before the first."""
        return self._stand_at(*await self._last())

    async def changes(self, after: int) -> Sequence[Change] | None:
        """Every change after number `after`, oldest first; None when some are forgotten or the store began anew."""
        changes: list[Change] = []
        while True:
            place = after + len(changes)
            rows = await self.look(lua.CHANGES, [], place, self._places.get(place, b""), _AT_ONCE)
            if rows is None:
                return None
            changes += [self._change(row) for row in rows]
            if len(rows) < _AT_ONCE:
                return changes

    async def wait(self, after: int, timeout_s: float) -> None:
        """Return when there may be changes after number `after`, or after `timeout_s`."""
        shout = self._listen()
        until = asyncio.get_running_loop().time() + timeout_s
        while True:
            shout.clear()
            number, name = await self._last()
            if number != after or name != self._places.get(after, name):
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
        return self.seal.seal(_PURPOSE, _NAME, key.encode("utf-8", "surrogatepass"))

    async def _last(self) -> tuple[int, bytes]:
        number, name = await self.look(lua.LATEST, [])
        return number, name

    def _stand_at(self, number: int, name: bytes) -> int:
        if not self.replicas:  # what can be read is on the disk: with replicas it may be lost before it is acknowledged
            self.acknowledged(number)
        if name:
            self._places.pop(number, None)
            self._places[number] = name
            if len(self._places) > _PLACES:
                del self._places[next(iter(self._places))]
        return number

    def _change(self, row: Sequence[object]) -> Change:
        match row:
            case [bytes() as number, [_, bytes() as kind, _, bytes() as sealed, *_]]:
                key = self.unsealed(_PURPOSE, _NAME, sealed).decode("utf-8", "surrogatepass")
                return Change(self._stand_at(int(number.partition(b"-")[0]), sealed), kind.decode(), key)
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
                    while True:
                        shout.set()  # at first as well: something may have been missed until now
                        await wire.message()
                finally:
                    await wire.close()
            await asyncio.sleep(_LOOK_S)
