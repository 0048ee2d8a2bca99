"""One obligation of a plan, and how a plugin is called: whatever it raises becomes `ObligationFailed`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from gateway.core.obligations import Params


class ObligationFailed(Exception):
    """An obligation could not be enforced: answer `obligation_failed` and send nothing of the upstream's.

    Its text names the plugin, the kind of error and the line, never a value of the request or the response.
    """


@dataclass(frozen=True, slots=True)
class Step[Handler]:
    """One obligation with its validated parameters."""

    kind: str
    handler: Handler
    params: Params


def run(kind: str, method: Callable[..., object], *args: object) -> object:
    """Call a plugin. Raises ObligationFailed."""
    try:
        return method(*args)
    except Exception as problem:  # noqa: BLE001 - raised again under one name, never swallowed
        # The message and the chain are cut off: they may hold a piece of the body.
        trace = problem.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
        raise ObligationFailed(f"{kind}: {type(problem).__name__} at {place}") from None
