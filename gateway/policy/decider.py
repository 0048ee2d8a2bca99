"""Stage 8: one engine behind a deadline, and the decision cache that policy itself allows."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic_core import to_json

from gateway.core.decision import Decision
from gateway.core.ports.pipeline import EngineFailure, PolicyEngine
from gateway.core.reasons import Reason, Refusal
from gateway.policy.contract import parse_answer

_HEADERS = ("request", "headers")


class Decider:
    """Asks one engine, within `deadline_s`, and remembers answers for as long as the policy itself allows.

    A remembered answer holds for the same bundle version and for inputs that agree in everything the policies can read,
    `now` apart: that is what `cache_s` speaks of. At most `cache_size` answers are kept.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        deadline_s: float = 0.05,
        cache_size: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self._deadline_s = deadline_s
        self._cache_size = cache_size
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()
        self._cached_version = ""

    @property
    def version(self) -> str:
        """The version of the bundle that decides."""
        return self.engine.version

    @property
    def reason_texts(self) -> Mapping[str, Reason]:
        """What to tell the person who meets one of the policies' own reason codes."""
        return self.engine.reason_texts

    async def close(self) -> None:
        """Close the engine."""
        await self.engine.close()

    async def decide(self, document: Mapping[str, Any]) -> Decision | Refusal:
        """The decision for one input document. Everything an engine is known to do wrong is a `Refusal`."""
        started = self._clock()
        version = self.engine.version
        try:
            # Policies that never say cache_s do not pay for the key.
            key = self._key(document) if self._cache else None
            if key is not None and (known := self._recall(key, version, started)):
                return known
            if self.engine.in_process:
                raw = await self.engine.evaluate(document)
            else:
                async with asyncio.timeout(self._deadline_s):
                    raw = await self.engine.evaluate(document)
            decision = parse_answer(raw)
            if (
                isinstance(decision, Decision)
                and decision.cache_s
                and self._cache_size
                and self.engine.version == version
            ):
                self._remember(key or self._key(document), version, started + decision.cache_s, decision)
        except TimeoutError:
            return Refusal("policy_timeout")
        except EngineFailure as failure:
            return Refusal(failure.reason, failure.detail)
        return decision

    def _recall(self, key: bytes, version: str, now: float) -> Decision | None:
        if version != self._cached_version:
            self._cache.clear()
            return None
        entry = self._cache.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        return entry[1]

    def _remember(self, key: bytes, version: str, expires_at: float, decision: Decision) -> None:
        if version != self._cached_version:
            self._cache.clear()
            self._cached_version = version
        self._cache[key] = (expires_at, decision)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)

    def _key(self, document: Mapping[str, Any]) -> bytes:
        whole = {name: value for name, value in document.items() if name != "now"}
        try:
            return key_of(whole, self.engine.reads)
        except (ValueError, TypeError, RecursionError) as error:
            raise EngineFailure("policy_error", "the input document cannot be written as JSON") from error


def key_of(document: Mapping[str, Any], reads: Iterable[tuple[str, ...]]) -> bytes:
    """What is read of `document`, as bytes; two documents with the same bytes have the same answer.

    Raises ValueError for what JSON cannot say.
    """
    values: list[list[Any]] = []
    for path in reads:
        value: Any = document
        for name in path:
            if not isinstance(value, dict) or name not in value:
                values.append([])
                break
            value = value[name]
        else:
            values.append([value])
    return to_json(values)


def judged_headers(reads: Iterable[tuple[str, ...]]) -> frozenset[str] | None:
    """The request headers that the policies read, None when they can read any of them."""
    names = set()
    for path in reads:
        if path[:2] != _HEADERS[: len(path)]:
            continue
        if len(path) <= len(_HEADERS):
            return None
        names.add(path[2])
    return frozenset(names)
