"""How the gateway talks to Redis: commands that come at the same time travel together, and nothing waits for long.

Laws: every answer is followed by a look at the store's epoch, so none comes from a store that is not the one that was
opened. A write is acknowledged when as many replicas have it as configured. A command whose outcome is unknown is
`StoreDown`. What is read is asked again once when the connection broke; what is written never is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from gateway.adapters.redis.connection import BadReply, Command, RedisConnection
from gateway.core.ports.stores import StoreDown

_TOGETHER = 128  # commands in one exchange


class _Asked(NamedTuple):
    until: float
    command: Command
    answer: asyncio.Future[Any]


class BatchedConnection:
    """One connection, opened when it is needed, and the commands that wait for it.

    `dial` opens it; `tail` are commands that follow each exchange, and `judge` raises StoreDown unless their replies
    are good. A command waits `patience_s` for its turn, an exchange takes `timeout_s`. `again`: commands only read.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[RedisConnection]],
        judge: Callable[[Sequence[Any]], None],
        tail: Sequence[Command],
        *,
        timeout_s: float,
        patience_s: float,
        again: bool,
    ) -> None:
        self._dial = dial
        self._judge = judge
        self._tail = tuple(tail)
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._again = again
        self._queue: deque[_Asked] = deque()
        self._task: asyncio.Task[None] | None = None
        self._wire: RedisConnection | None = None
        self._is_closed = False

    async def ask(self, *command: bytes | str | float) -> Any:
        """The reply to one command. Raises StoreDown."""
        if self._is_closed:
            raise StoreDown("the store is closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._queue.append(_Asked(loop.time() + self._patience_s, command, answer))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await answer

    async def hang_up(self) -> None:
        """Close the connection; the next command opens another."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()

    async def close(self) -> None:
        """Refuse what waits, and close."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._fail(self._queue, StoreDown("the store is closed"))
        await self.hang_up()

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._exchange(self._next())
        finally:
            self._task = None

    def _next(self) -> list[_Asked]:
        now = asyncio.get_running_loop().time()
        batch: list[_Asked] = []
        while self._queue and len(batch) < _TOGETHER:
            asked = self._queue.popleft()
            if asked.until <= now:
                self._fail([asked], StoreDown("redis: too many commands wait"))
            elif not asked.answer.done():
                batch.append(asked)
        return batch

    async def _exchange(self, batch: list[_Asked]) -> None:
        if not batch:
            return
        until = min(batch[0].until, asyncio.get_running_loop().time() + self._timeout_s)
        try:
            async with asyncio.timeout_at(until):
                replies = await self._replies([*(asked.command for asked in batch), *self._tail])
            self._judge(replies[len(batch) :])
        except TimeoutError:
            await self._broken(batch, StoreDown(f"redis: no answer in {self._timeout_s * 1000:.0f} ms"))
            return
        except StoreDown as error:
            await self._broken(batch, error)
            return
        except asyncio.CancelledError:
            self._fail(batch, StoreDown("the store is closed"))
            raise
        is_good = True
        for asked, reply in zip(batch, replies, strict=False):
            if isinstance(reply, BadReply):
                is_good = False
                self._fail([asked], StoreDown(f"redis: {reply.text}"))
            elif not asked.answer.done():
                asked.answer.set_result(reply)
        if not is_good:  # no longer the master, scripts forgotten: a new connection finds out
            await self.hang_up()

    async def _replies(self, commands: list[Command]) -> list[Any]:
        if self._wire is not None and await self._wire.is_clean():
            try:
                return await self._wire.exchange(commands)
            except StoreDown:
                if not self._again:
                    raise
        await self.hang_up()
        self._wire = await self._dial()
        return await self._wire.exchange(commands)

    async def _broken(self, batch: Sequence[_Asked], error: StoreDown) -> None:
        """Refuse everyone: who came later would wait for the same."""
        self._fail(batch, error)
        self._fail(self._queue, error)
        self._queue.clear()
        await self.hang_up()

    @staticmethod
    def _fail(items: Sequence[_Asked] | deque[_Asked], error: StoreDown) -> None:
        for asked in items:
            if not asked.answer.done():
                asked.answer.set_exception(type(error)(str(error)))
