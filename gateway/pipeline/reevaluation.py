"""Continuous evaluation: what is open is judged again, at once when something changes that it depends on, else by time.

Laws: a request under way whose verdict is no longer Forward is cut, in both directions, whatever its protocol and its
edge. Where that cannot be told (the store, the policy engine or the issuer does not answer), it may go on for `DOUBT_S`
and is cut then.
Nothing here costs a request anything while nothing changes: the edge lists what is open when it is asked.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from gateway.core.ports.stores import Change, Changes, StoreDown
from gateway.core.subject import subject_key
from gateway.pipeline.headers import Forward
from gateway.pipeline.pipeline import Pipeline
from gateway.pipeline.verdicts import Verdict

DOUBT_S = 10.0
_WAIT_S, _RETRY_S = 1.0, 0.2
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


class OpenRequest(Protocol):
    """A request as long as its edge has it. Times are `time.monotonic()` seconds.

    `verdict` is None while it is being judged. `used_at`: when somebody last used it. `doubt_since`: since when it
    could not be told whether it may go on.
    """

    verdict: Verdict | None
    over: bool
    judged_at: float
    used_at: float
    doubt_since: float | None

    def cut(self, reason: str) -> None:
        """End it: with a denial when no response was begun, else by cutting it."""


class OpenRequests(Protocol):
    """An edge's open requests, and the pipeline that judges now."""

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline of the generation that serves."""

    @property
    def rejudge_s(self) -> float:
        """After so many seconds an open request is judged again in any case."""

    def open_requests(self) -> Iterable[OpenRequest]:
        """Every request that is open or being judged."""

    def record_cut(self, reason: str) -> None:
        """Count a request that was cut."""


class ContinuousEvaluation:
    """Judges the open requests of one edge. `follow_changes` and `run_periodically` run for ever."""

    def __init__(self, requests: OpenRequests, changes: Changes) -> None:
        self._requests = requests
        self._changes = changes
        self._work: set[asyncio.Task[None]] = set()
        self._flaw: BaseException | None = None

    async def follow_changes(self) -> None:
        """Hear of every change, and judge what depends on it at once; a gap means that everything changed."""
        seen: int | None = None
        while True:
            if self._flaw is not None:
                raise self._flaw
            try:
                if seen is None:
                    seen = await self._changes.latest()
                await self._changes.wait(seen, _WAIT_S)
                changes = await self._changes.changes(seen)
                if changes is None:
                    seen = await self._changes.latest()
                elif changes:
                    seen = changes[-1].seq
            except StoreDown:
                await asyncio.sleep(_RETRY_S)
                continue
            if changes is None or changes:
                self._requests.pipeline.ports.assessor.invalidate()
                self._expect_stale_verdicts()
                self._begin(self.reevaluate(self._open(_depends_on(changes) if changes else lambda _: True)))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Judge while the next change is waited for: an issuer that does not answer must not keep it waiting."""
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            self._flaw = self._flaw or task.exception()

    async def run_periodically(self) -> None:
        """Judge each open request when it was not judged for a while: tokens expire, and hours end."""
        while True:
            await asyncio.sleep(_TICK_S)
            until = time.monotonic() + _TICK_S * _SHARE
            before = time.monotonic() - self._requests.rejudge_s
            due = sorted(self._open(lambda _: True), key=lambda request: request.judged_at)
            waited = itertools.takewhile(lambda request: request.judged_at <= before, due)  # noqa: B023  (used at once)
            async with asyncio.TaskGroup() as group:
                for request in itertools.islice(waited, _AT_ONCE):
                    group.create_task(self._in_turn(request, until))

    async def _in_turn(self, request: OpenRequest, until: float) -> None:
        if time.monotonic() <= until:
            await self._reevaluate(request)

    async def reevaluate_all(self) -> None:
        """Judge everything that is open: the rules themselves have changed."""
        self._expect_stale_verdicts()
        await self.reevaluate(self._open(lambda _: True))

    async def reevaluate(self, requests: Iterable[OpenRequest]) -> None:
        """Judge these; of those with one session and device, the first may speak for all."""
        related: dict[tuple[str, str], list[OpenRequest]] = {}
        for request in requests:
            related.setdefault(_holder(request), []).append(request)
        places = asyncio.Semaphore(_AT_ONCE)

        async def each(holder: tuple[str, str], members: list[OpenRequest]) -> None:
            async with places:
                reason = ""
                for request in members:
                    if reason in _OF_ALL and any(holder):
                        self._cut(request, reason)
                    else:
                        reason = await self._reevaluate(request)
                await asyncio.sleep(0)

        # At once: whose issuer does not answer keeps nobody else waiting.
        async with asyncio.TaskGroup() as group:
            for holder, members in related.items():
                group.create_task(each(holder, members))

    async def _reevaluate(self, request: OpenRequest) -> str:
        """The reason for which the request was cut, or is in doubt; "" when it may go on."""
        forward = request.verdict
        if request.over or not isinstance(forward, Forward):
            return ""
        in_use = request.used_at > request.judged_at
        refused = await self._requests.pipeline.reevaluate(forward, in_use=in_use)
        now = time.monotonic()
        request.judged_at = now
        if refused is None:
            request.doubt_since = None
            return ""
        if refused.reason in _DOUBTS:
            request.doubt_since = request.doubt_since or now
            if now - request.doubt_since < DOUBT_S:
                return refused.reason
        self._cut(request, refused.reason)
        return refused.reason

    def _expect_stale_verdicts(self) -> None:
        """A request whose verdict is on its way may have been judged by what was true before: its turn comes next."""
        for request in self._requests.open_requests():
            if request.verdict is None:
                request.judged_at = -math.inf

    def _cut(self, request: OpenRequest, reason: str) -> None:
        if not request.over:
            request.cut(reason)
            if isinstance(request.verdict, Forward) and not request.verdict.route.zero_log:
                self._requests.record_cut(reason)

    def _open(self, wanted: Callable[[Forward], bool]) -> list[OpenRequest]:
        return [
            request
            for request in self._requests.open_requests()
            if isinstance(request.verdict, Forward) and wanted(request.verdict)
        ]


def _depends_on(changes: Iterable[Change]) -> Callable[[Forward], bool]:
    """Whether a request depends on one of these changes."""
    changed: dict[str, set[str]] = {"session": set(), "device": set(), "subject": set()}
    for change in changes:
        if change.kind not in changed:
            return lambda _: True
        changed[change.kind].add(change.key)

    def depends(forward: Forward) -> bool:
        identity = forward.identity
        return (
            (forward.session is not None and forward.session.id in changed["session"])
            or (forward.device is not None and forward.device.id in changed["device"])
            or (identity is not None and subject_key(identity.issuer, identity.subject) in changed["subject"])
        )

    return depends


def _holder(request: OpenRequest) -> tuple[str, str]:
    forward = request.verdict
    if not isinstance(forward, Forward):
        return "", ""
    session, device = forward.session, forward.device
    return session.id if session is not None else "", device.id if device is not None else ""
