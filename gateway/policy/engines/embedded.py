"""The embedded Rego engine: Microsoft's regorus, in this process. The only importer of `regorus`.

Its interpreter is used, not its faster compiled form: that one puts a made-up string where a comprehension's term is
undefined, forgets default functions, takes parts of a rule's name for the rule and overflows the stack on recursion.
The interpreter raises where a builtin fails; the OPA server is asked to do the same (`strict-builtin-errors`).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import regorus  # type: ignore[import-untyped]

from gateway.core.ports.pipeline import EngineFailure
from gateway.policy.contract import ENTRY_POINT, document_json

if TYPE_CHECKING:
    from gateway.policy.bundle.model import Bundle

type Module = tuple[str, str]
"""A module's file name and its source."""

_PLACE = re.compile(r"--> (?P<file>.*):(?P<line>\d+):\d+$", re.MULTILINE)
_MESSAGE = re.compile(r"^error: (?P<message>.*)$", re.MULTILINE)
_UNDEFINED = '"<undefined>"'
_PROBE = ("probe", "package gateway_probe\n\nready := true\n")


class RegoError(ValueError):
    """A module that the engine does not take; `line` counts from 1, 0 when it is unknown."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {message}")
        self.file = file
        self.line = line
        self.message = message


class EmbeddedEngine:
    """`PolicyEngine` in process. A regorus engine belongs to one thread, so each thread builds its own at first use.

    An evaluation holds the interpreter's lock and cannot be interrupted. One that took longer than `deadline_s` is
    refused when it comes back; one that never does blocks its worker, and the supervisor's watchdog ends a worker that
    does not answer.
    """

    in_process = True

    def __init__(self, bundle: Bundle, deadline_s: float = 0.05) -> None:
        self._bundle = bundle
        self._deadline_s = deadline_s
        self._local = threading.local()

    @property
    def version(self) -> str:
        """The digest of the bundle."""
        return self._bundle.version

    @property
    def reads(self) -> Sequence[tuple[str, ...]]:
        """What the bundle can read."""
        return self._bundle.reads

    async def evaluate(self, document: Mapping[str, Any]) -> object:
        """The raw answer, None when undefined. Raises `EngineFailure`: `policy_error`, `policy_timeout`."""
        text = document_json(document)
        engine = getattr(self._local, "engine", None)
        if engine is None:
            engine = self._local.engine = _build(self._bundle.modules, self._bundle.data_json)
        started = time.monotonic()
        try:
            engine.set_input_json(text)
            answer = engine.eval_rule_as_json(ENTRY_POINT)
        except RuntimeError as error:
            # The message may quote the input, so only the place is kept.
            raise EngineFailure("policy_error", _place(str(error))) from None
        except BaseException as panic:
            self._local.engine = None
            if _is_panic(panic):
                raise EngineFailure("policy_error", "the engine panicked") from None
            raise
        if time.monotonic() - started > self._deadline_s:
            raise EngineFailure("policy_timeout")
        return None if answer == _UNDEFINED else json.loads(answer)

    async def close(self) -> None:
        """Drop this thread's engine."""
        self._local.engine = None


def syntax(module: Module) -> Mapping[str, Any]:
    """The syntax tree of one module, as regorus gives it. Raises `RegoError`."""
    engine = regorus.Engine()
    _run(module[0], engine.add_policy, *module)
    tree: Mapping[str, Any] = json.loads(engine.get_ast_as_json())[0]["ast"]
    return tree


def prepare(modules: Sequence[Module], data_json: str) -> None:
    """Analyse the modules together (unsafe variables, conflicts). Raises `RegoError`."""
    _run("policy", _build, modules, data_json)


def run_tests(modules: Sequence[Module], tests: Sequence[Module], data_json: str) -> Mapping[str, str]:
    """Every rule `test_...` of `tests` by its path, with "" when it holds, else why not. Raises `RegoError`."""
    engine = _run("tests", _build, (*modules, *tests), data_json)
    found: dict[str, str] = {}
    for name, source in tests:
        package = re.search(r"^package\s+(\S+)", source, re.MULTILINE)
        prefix = package[1] if package is not None else ""
        for rule in dict.fromkeys(re.findall(r"^(test_\w+)", source, re.MULTILINE)):
            path = f"{prefix}.{rule}"
            try:
                answer = _run(name, engine.eval_rule_as_json, f"data.{path}")
            except RegoError as error:
                found[path] = f"line {error.line}: {error.message}" if error.line else error.message
            else:
                found[path] = "" if answer == "true" else "undefined" if answer == _UNDEFINED else f"answered {answer}"
    return found


def _build(modules: Sequence[Module], data_json: str) -> Any:
    """An engine that has done its analysis, so that the first request does not pay for it."""
    engine = regorus.Engine()
    for name, source in (*modules, _PROBE):
        engine.add_policy(name, source)
    engine.add_data_json(data_json)
    engine.eval_rule_as_json("data.gateway_probe.ready")
    return engine


def _run(file: str, call: Any, *args: object) -> Any:
    try:
        return call(*args)
    except RuntimeError as error:
        place, message = _PLACE.search(str(error)), _MESSAGE.search(str(error))
        text = message["message"] if message else str(error).strip().partition("\n")[0]
        raise RegoError(place["file"] if place else file, int(place["line"]) if place else 0, text) from None
    except BaseException as panic:
        if _is_panic(panic):
            raise RegoError(file, 0, "the engine panicked") from None
        raise


def _place(message: str) -> str:
    found = _PLACE.search(message)
    return f"{found['file']}:{found['line']}" if found else ""


def _is_panic(error: BaseException) -> bool:
    """Whether this is a Rust panic: its class derives from BaseException and cannot be imported."""
    return type(error).__module__ == "pyo3_runtime"
