"""Deadline of a decision: whatever is late, raises or is cancelled on the way becomes a denial with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import Refusal
from gateway.pipeline.context import DecisionContext
from gateway.replies.replies import Reply

# A port that hangs, and one that raises, by stage; every other one is a gateway_error.
_LATE = {"identify": "issuer_unavailable", "assess": "risk_unavailable", "decide": "policy_timeout"}
_RAISED = {"assess": "risk_unavailable", "decide": "policy_error"}


async def within_deadline[T](
    context: DecisionContext,
    work: Coroutine[Any, Any, T],
    deadline_s: float,
    conclude_failure: Callable[[DecisionContext, Refusal], Reply],
) -> T | Reply:
    """What `work` gives within `deadline_s` seconds, else the reply to its failure.

    Raises nothing but the CancelledError of whoever cancels the calling task.
    """
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    # Cheaper than asyncio.timeout, and most requests are judged without ever waiting.
    alarm = asyncio.get_running_loop().call_later(deadline_s, context.give_up, task)
    try:
        return await work
    except asyncio.CancelledError:
        if context.is_late:
            task.uncancel()
            return conclude_failure(context, Refusal(_LATE.get(context.stage, "gateway_error"), "deadline"))
        if task.cancelling():
            raise
        return conclude_failure(context, Refusal("gateway_error", f"cancelled in {context.stage}"))
    except StoreDown:
        return conclude_failure(context, Refusal("store_down"))
    except Exception as error:  # noqa: BLE001  (whatever a stage raises is a denial)
        code = _RAISED.get(context.stage, "gateway_error")
        return conclude_failure(context, Refusal(code, f"{type(error).__name__} in {context.stage}"))
    finally:
        alarm.cancel()
