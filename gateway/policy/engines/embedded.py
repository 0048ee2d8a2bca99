"""The embedded engine: OPA itself, in this process.

An evaluation that may take long must not stop the event loop. A short one runs in it, for nothing is quicker; it gets
`IN_LOOP_S` there. One that needs longer is cancelled and begun again in a thread beside the loop, which policies
allow because they are pure. Where it is slow there as well (the machine may have been busy elsewhere), those that come
soon after it begin there too; so do inputs that are large.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gateway.core.ports.pipeline import EngineFailure
from gateway.core.reasons import Reason
from gateway.policy.contract import document_json
from gateway.policy.engines.compiled_policy import (
    CompiledPolicy,
    EvaluationCancelled,
    EvaluationFailed,
    PolicyProblem,
    PolicyRejected,
)

if TYPE_CHECKING:
    from gateway.policy.bundle.model import Bundle

# docs/adr/0006: a thread costs more than the loop, and a request may wait this long for another one's evaluation.
IN_LOOP_S = 0.002
IN_LOOP_BYTES = 64 << 10
_THREADS = 4
_FEWEST_BESIDE, _MOST_BESIDE, _FOR_GOOD = 64, 4096, 1 << 62
# One builtin is not interrupted (a regular expression, a sum): so much past its budget, and no other one gets the loop.
_OVERRUN_S = 0.05


class EmbeddedEngine:
    """`PolicyEngine` in process. `deadline_s` bounds an evaluation wherever it runs; past it, it is cancelled."""

    in_process = True

    def __init__(self, bundle: Bundle, deadline_s: float = 0.05) -> None:
        self._bundle = bundle
        self._deadline_s = deadline_s
        self._threads = ThreadPoolExecutor(_THREADS, "policy")
        self._running: dict[int, CompiledPolicy] = {}
        # How many evaluations run beside the loop from now on, and how many the next slow one sends there.
        self._beside_left = 0
        self._closed = False
        self._beside_next = _FEWEST_BESIDE

    @property
    def version(self) -> str:
        """The digest of the bundle."""
        return self._bundle.version

    @property
    def reads(self) -> Sequence[tuple[str, ...]]:
        """What the bundle can read."""
        return self._bundle.reads

    @property
    def reason_texts(self) -> Mapping[str, Reason]:
        """The texts of the policies' own reason codes."""
        return self._bundle.reasons

    async def evaluate(self, document: Mapping[str, Any]) -> object:
        """The raw answer, None when undefined. Raises `EngineFailure`: `policy_error`, `policy_timeout`."""
        text = document_json(document).encode()
        started = time.monotonic()
        if self._closed:
            raise EngineFailure("policy_unavailable", "the engine is closed")
        try:
            if len(text) <= IN_LOOP_BYTES and not self._beside_left:
                try:
                    return self._bundle.policy.evaluate_here(text, min(IN_LOOP_S, self._deadline_s))
                except EvaluationCancelled:
                    if time.monotonic() - started > _OVERRUN_S:
                        self._beside_left = _FOR_GOOD
                    return await self._again(text, started + self._deadline_s)
            self._beside_left = max(0, self._beside_left - 1)
            return await self._beside(text, started + self._deadline_s)
        except (EvaluationCancelled, TimeoutError):
            raise EngineFailure("policy_timeout") from None
        except EvaluationFailed as failed:
            # The message may quote the input, so only the place is kept.
            raise EngineFailure("policy_error", _place(failed.problem)) from None
        except PolicyRejected as rejected:
            raise EngineFailure("policy_error", rejected.problems[0].message) from None

    async def close(self) -> None:
        """End what is running, and free the policies."""
        self._closed = True
        for ticket, policy in self._running.items():
            policy.cancel(ticket)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._bundle.close()

    async def _beside(self, text: bytes, until: float) -> object:
        """Evaluate in a thread. What waits for a thread past the deadline is not begun."""
        policy, ticket = self._bundle.policy, CompiledPolicy.new_ticket()

        def evaluate() -> object:
            left = until - time.monotonic()
            if left <= 0:
                raise EvaluationCancelled
            return policy.evaluate(text, left, ticket)

        self._running[ticket] = policy
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                return await asyncio.get_running_loop().run_in_executor(self._threads, evaluate)
        finally:
            del self._running[ticket]
            policy.cancel(ticket)

    async def _again(self, text: bytes, until: float) -> object:
        """Evaluate beside the loop what took too long in it; where it does there too, the next ones begin there."""
        started = time.monotonic()
        try:
            return await self._beside(text, until)
        finally:
            if time.monotonic() - started > IN_LOOP_S and self._beside_left < self._beside_next:
                self._beside_left = self._beside_next
                self._beside_next = min(2 * self._beside_next, _MOST_BESIDE)


def _place(problem: PolicyProblem) -> str:
    return f"{problem.file}:{problem.row}" if problem.file else problem.code
