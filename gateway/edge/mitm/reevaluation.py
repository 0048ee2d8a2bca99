"""What is open is judged again: at once when something changes that it hangs on, and from time to time in any case.

Laws: a request under way whose verdict is no longer Forward is cut, in both directions, whatever its protocol. Where
that cannot be said (the store, the policy engine or the issuer does not answer), it may go on for `DOUBT_S` and is cut
then.
Nothing here costs a request anything while nothing changes: what is open is found by looking through the connections.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from gateway.core.ports.stores import Change, Changes, StoreDown
from gateway.core.subject import subject_key
from gateway.edge.mitm.commands import Interrupt
from gateway.edge.mitm.exchange import Exchange
from gateway.pipeline.headers import Forward

if TYPE_CHECKING:
    from gateway.edge.mitm.connection import ClientConnection
    from gateway.server.edge_host import EdgeHost

DOUBT_S = 10.0
_LOOK_S, _RETRY_S = 1.0, 0.2
_TICK_S = 0.1
_AT_ONCE = 64
# Of its time, that is what judging by the clock may take: with very many connections each one's turn comes later.
_SHARE = 0.1
# These say something about everything that the same session or device has open.
_OF_ALL = frozenset(
    {"session_revoked", "session_expired", "device_revoked", "device_unknown", "certificate_revoked", "token_inactive"}
)
# The gateway does not know: its own trouble, or a server's that it asks.
_DOUBTS = frozenset(
    {"store_down", "issuer_unavailable", "policy_timeout", "policy_unavailable", "policy_error", "gateway_error"}
    | {"risk_unavailable", "crl_stale", "record_unavailable"}
)

type _Open = tuple[ClientConnection, Exchange]


class ContinuousEvaluation:
    """Judges the open requests of one worker. `follow` and `turns` run for ever."""

    def __init__(self, edge: EdgeHost, changes: Changes) -> None:
        self._edge = edge
        self._changes = changes
        self._work: set[asyncio.Task[None]] = set()
        self._flaw: BaseException | None = None

    async def follow(self) -> None:
        """Hear of every change, and judge what hangs on it at once; what was missed means that everything changed."""
        seen: int | None = None
        while True:
            if self._flaw is not None:
                raise self._flaw
            try:
                if seen is None:
                    seen = await self._changes.latest()
                await self._changes.wait(seen, _LOOK_S)
                found = await self._changes.changes(seen)
                if found is None:
                    seen = await self._changes.latest()
                elif found:
                    seen = found[-1].seq
            except StoreDown:
                await asyncio.sleep(_RETRY_S)
                continue
            if found is None or found:
                self._edge.generation.pipeline.ports.assessor.heard()
                self._doubt_what_is_being_judged()
                self._begin(self.judge(self._open(_hangs_on(found) if found else lambda _: True)))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Judge while the next change is waited for: an issuer that does not answer must not keep it waiting."""
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            self._flaw = self._flaw or task.exception()

    async def turns(self) -> None:
        """Judge each open request when it was not judged for a while: tokens expire, and hours end."""
        while True:
            await asyncio.sleep(_TICK_S)
            until = time.monotonic() + _TICK_S * _SHARE
            before = time.monotonic() - self._edge.limits.rejudge_s
            due = sorted(self._open(lambda _: True), key=lambda one: one[1].judged_at)
            waited = itertools.takewhile(lambda one: one[1].judged_at <= before, due)  # noqa: B023  (used at once)
            async with asyncio.TaskGroup() as group:
                for one in itertools.islice(waited, _AT_ONCE):
                    group.create_task(self._in_turn(*one, until))

    async def _in_turn(self, connection: ClientConnection, exchange: Exchange, until: float) -> None:
        if time.monotonic() <= until:
            await self._judge(connection, exchange)

    async def everything(self) -> None:
        """Judge everything that is open: the rules themselves have changed."""
        self._doubt_what_is_being_judged()
        await self.judge(self._open(lambda _: True))

    async def judge(self, found: Iterable[_Open]) -> None:
        """Judge these; of those with one session and device, the first may speak for all."""
        kin: dict[tuple[str, str], list[_Open]] = {}
        for connection, exchange in found:
            kin.setdefault(_holder(exchange), []).append((connection, exchange))
        places = asyncio.Semaphore(_AT_ONCE)

        async def each(holder: tuple[str, str], members: list[_Open]) -> None:
            async with places:
                reason = ""
                for connection, exchange in members:
                    if reason in _OF_ALL and any(holder):
                        self._cut(connection, exchange, reason)
                    else:
                        reason = await self._judge(connection, exchange)
                await asyncio.sleep(0)

        # At once: whose issuer does not answer keeps nobody else waiting.
        async with asyncio.TaskGroup() as group:
            for holder, members in kin.items():
                group.create_task(each(holder, members))

    async def _judge(self, connection: ClientConnection, exchange: Exchange) -> str:
        """The reason for which the request was cut, or is in doubt; "" when it may go on."""
        forward = exchange.verdict
        if exchange.over or not isinstance(forward, Forward):
            return ""
        in_use = exchange.used_at > exchange.judged_at
        refused = await self._edge.generation.pipeline.reevaluate(forward, in_use=in_use)
        now = time.monotonic()
        exchange.judged_at = now
        if refused is None:
            exchange.doubt_since = None
            return ""
        if refused.reason in _DOUBTS:
            exchange.doubt_since = exchange.doubt_since or now
            if now - exchange.doubt_since < DOUBT_S:
                return refused.reason
        self._cut(connection, exchange, refused.reason)
        return refused.reason

    def _doubt_what_is_being_judged(self) -> None:
        """A request whose verdict is on its way may have been judged by what was true before: its turn comes next."""
        for connection in self._edge.connections:
            for exchange in connection.exchanges.values():
                if exchange.verdict is None:
                    exchange.judged_at = -math.inf

    def _cut(self, connection: ClientConnection, exchange: Exchange, reason: str) -> None:
        if not exchange.over:
            connection.pump(Interrupt(exchange.stream_id, reason))
            if isinstance(exchange.verdict, Forward) and not exchange.verdict.route.zero_log:
                self._edge.metrics.cut(reason)

    def _open(self, wanted: Callable[[Forward], bool]) -> list[_Open]:
        return [
            (connection, exchange)
            for connection in self._edge.connections
            for exchange in connection.exchanges.values()
            if isinstance(exchange.verdict, Forward) and wanted(exchange.verdict)
        ]


def _hangs_on(changes: Iterable[Change]) -> Callable[[Forward], bool]:
    """Whether a request hangs on one of these changes."""
    changed: dict[str, set[str]] = {"session": set(), "device": set(), "subject": set()}
    for change in changes:
        if change.kind not in changed:
            return lambda _: True
        changed[change.kind].add(change.key)

    def hangs(forward: Forward) -> bool:
        identity = forward.identity
        return (
            (forward.session is not None and forward.session.id in changed["session"])
            or (forward.device is not None and forward.device.id in changed["device"])
            or (identity is not None and subject_key(identity.issuer, identity.subject) in changed["subject"])
        )

    return hangs


def _holder(exchange: Exchange) -> tuple[str, str]:
    forward = exchange.verdict
    if not isinstance(forward, Forward):
        return "", ""
    session, device = forward.session, forward.device
    return session.id if session is not None else "", device.id if device is not None else ""
