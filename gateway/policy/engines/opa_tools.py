"""What OPA's command line does, in process: test, fmt, bundles with their signatures, capabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.policy.engines.compiled_policy import Module
from gateway.policy.engines.opa_library import library

_TEST_TIMEOUT_MS = 5_000
_BUNDLE_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class TestResult:
    """How one rule `test_...` came out. `why` is "" when it passed; `failed_at` is the expression that failed."""

    name: str
    file: str
    row: int
    passed: bool
    skipped: bool
    milliseconds: float
    why: str
    failed_at: str
    failed_row: int
    output: str


@dataclass(frozen=True, slots=True)
class TestRun:
    """Every test, and the coverage report of OPA where it was wanted."""

    results: tuple[TestResult, ...]
    coverage: Mapping[str, Any] | None


def run_tests(
    modules: Sequence[Module], data_json: bytes = b"{}", *, pattern: str = "", coverage: bool = False
) -> TestRun:
    """Run the tests among `modules` whose name fits `pattern`. Raises `PolicyRejected`."""
    answer = library().call(
        "test",
        data_json,
        modules=[{"name": name, "text": text} for name, text in modules],
        filter=pattern,
        coverage=coverage,
        timeout_ms=_TEST_TIMEOUT_MS,
    )
    return TestRun(tuple(_result(raw) for raw in answer["tests"]), answer.get("coverage"))


def _result(raw: Mapping[str, Any]) -> TestResult:
    at = raw["failed_at"] or {}
    failed = not raw["passed"] and not raw["skipped"]
    why = raw["error"] or (f"line {at['row']}: {at['message']}" if at else "undefined or false") if failed else ""
    return TestResult(
        raw["name"].removeprefix("data."),
        raw["file"],
        raw["row"],
        raw["passed"],
        raw["skipped"],
        raw["ms"],
        why,
        at.get("message", ""),
        at.get("row", 0),
        raw["output"],
    )


def formatted(name: str, source: str) -> str:
    """A module as `opa fmt` writes it. Raises `PolicyRejected`."""
    text: str = library().call("format", source.encode(), name=name)["text"]
    return text


def pure_capabilities() -> str:
    """The capabilities file of this OPA without what is impure: what `policies/capabilities.json` holds."""
    return json.dumps(library().call("capabilities"), indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class OpaBundle:
    """What an OPA bundle carries."""

    revision: str
    modules: tuple[Module, ...]
    data: Mapping[str, Any]


def read_bundle(
    archive: bytes, keys: Mapping[str, tuple[str, str]] | None = None, *, key_id: str = "", scope: str = ""
) -> OpaBundle:
    """Read a .tar.gz bundle of OPA. With `keys` (id -> PEM and algorithm) its signature must hold.

    Raises `PolicyRejected` (`bundle_error`): a bundle cut short, one without a signature, or one by another key.
    """
    named = {name: {"key": key, "algorithm": algorithm} for name, (key, algorithm) in keys.items()} if keys else None
    answer = library().call("bundle", archive, keys=named, key_id=key_id, scope=scope, limit_bytes=_BUNDLE_LIMIT_BYTES)
    modules = tuple((module["name"].lstrip("/"), module["text"]) for module in answer["modules"])
    return OpaBundle(answer["revision"], modules, answer["data"] or {})
