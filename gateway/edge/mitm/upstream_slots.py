"""Bounds on upstream connections: places that are taken before a connection is dialled, and wait in line for."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable

ALL = ""
NO_SLOT = "no place for another upstream connection"


class Slots:
    """So many places for each key; who finds none waits in line. A wait may be cancelled."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._places: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}
        self._waiting: collections.Counter[str] = collections.Counter()

    def try_acquire(self, key: str) -> bool:
        """Take a place at once; False when there is none, or others wait."""
        places = self._places.get(key)
        if places is None:
            places = self._places[key] = asyncio.Semaphore(self._limit())
        elif places.locked():
            return False
        # Not locked: nobody waits, and this does not either.
        places._value -= 1  # noqa: SLF001  (`acquire` is a coroutine, and never suspends here)
        self._users[key] = self._users.get(key, 0) + 1
        return True

    async def acquire(self, key: str) -> None:
        """Take a place, wait for one if need be."""
        if self.try_acquire(key):
            return
        places = self._places[key]
        self._users[key] += 1
        self._waiting[key] += 1
        has_place = False
        try:
            has_place = await places.acquire()
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
            if not has_place:
                self._left(key)

    def release(self, key: str) -> None:
        """Give a place back."""
        self._places[key].release()
        self._left(key)

    def is_full(self, key: str) -> bool:
        """Whether there is no place now."""
        return (places := self._places.get(key)) is not None and places.locked()

    def has_waiting(self, key: str) -> bool:
        """Whether somebody waits for a place."""
        return key in self._waiting

    def in_use(self, key: str) -> int:
        """How many have a place or wait for one."""
        return self._users.get(key, 0)

    def _left(self, key: str) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key], self._places[key]
