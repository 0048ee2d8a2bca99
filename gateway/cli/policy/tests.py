"""`gateway policy test`: the policies' own tests, in the engine that decides."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.policy.folder import policy_folder
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.operations.errors import ActionFailed

_DEADLINE_S = 5.0
_COLUMNS = ("file", "covered", "lines that no test came to")


def policy_test(
    config: ConfigOption = DEFAULT_CONFIG,
    run: Annotated[
        str, typer.Option("--run", help="Only tests and cases whose name fits this regular expression.")
    ] = "",
    coverage: Annotated[bool, typer.Option("--coverage", help="Show which lines no rule test came to.")] = False,
    json_wanted: JsonOption = False,
) -> None:
    """Run the *_test.rego files of the policy folder, and its cases/*.json, in the embedded engine.

    A case is {"input": ..., "answer": ...}: a whole decision, for the configured services or the `services` it brings.
    """
    from gateway.policy.bundle.loader import service_data  # noqa: PLC0415

    loaded, folder = policy_folder(config)
    try:
        pattern = re.compile(run)
    except re.error as error:
        raise ActionFailed(f"--run is no regular expression: {error}.") from error
    services = service_data(loaded.services)
    rules, report = _rules(folder, services, run, coverage=coverage)
    results = {**rules, **asyncio.run(_cases(folder, services, pattern))}
    failed = {name: why for name, why in results.items() if why}
    if json_wanted:
        document: dict[str, Any] = {"passed": sorted(results.keys() - failed.keys()), "failed": failed}
        output.as_json(document | ({"coverage": report} if coverage else {}))
    else:
        for name, why in failed.items():
            output.note(f"[bold red]failed[/] {escape(name)}\n  {escape(why)}")
        if coverage:
            _show_coverage(report)
        output.say(f"policy test: {len(results) - len(failed)} passed, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)


def _rules(
    folder: Path, services: dict[str, Any], pattern: str, *, coverage: bool
) -> tuple[dict[str, str], Mapping[str, Any]]:
    from gateway.policy.bundle import loader as bundle  # noqa: PLC0415
    from gateway.policy.bundle.model import BundleError  # noqa: PLC0415
    from gateway.policy.engines.compiled_policy import PolicyRejected  # noqa: PLC0415
    from gateway.policy.engines.opa_tools import run_tests  # noqa: PLC0415

    try:
        whole = bundle.load(folder, services, strict=True)
        files = sorted(file for file in folder.rglob("*_test.rego"))
        tests = [(file.relative_to(folder).as_posix(), file.read_bytes().decode("utf-8")) for file in files]
        done = run_tests([*whole.modules, *tests], whole.data_json, pattern=pattern, coverage=coverage)
    except (BundleError, PolicyRejected, OSError, ValueError) as error:
        raise ActionFailed(f"The policies cannot be tested: {error}") from error
    return {result.name: result.why for result in done.results}, _of_policies(done.coverage or {})


def _of_policies(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """OPA's coverage report without the tests themselves."""
    files = {name: entry for name, entry in report.get("files", {}).items() if not name.endswith("_test.rego")}
    covered, not_covered = (sum(entry.get(member, 0) for entry in files.values()) for member in _LINES)
    total = covered + not_covered
    return {"files": files, "coverage": round(100 * covered / total, 2) if total else 0.0}


_LINES = ("covered_lines", "not_covered_lines")


def _show_coverage(report: Mapping[str, Any]) -> None:
    rows = [
        dict(
            zip(_COLUMNS, (name, f"{entry.get('coverage', 0):g} %", _ranges(entry.get("not_covered", ()))), strict=True)
        )
        for name, entry in sorted(report["files"].items())
    ]
    output.rows(_COLUMNS, rows, json_wanted=False, empty="no rule was tested")
    output.say(f"coverage: {report['coverage']:g} %")


def _ranges(ranges: Any) -> str:
    pairs = [(part["start"]["row"], part["end"]["row"]) for part in ranges]
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in pairs)


async def _cases(folder: Path, services: dict[str, Any], pattern: re.Pattern[str]) -> dict[str, str]:
    from gateway.core.ports.pipeline import EngineFailure  # noqa: PLC0415
    from gateway.policy.bundle import loader as bundle  # noqa: PLC0415
    from gateway.policy.engines.embedded import EmbeddedEngine  # noqa: PLC0415

    outcomes: dict[str, str] = {}
    for file in sorted((folder / "cases").glob("*.json")):
        name = f"cases/{file.name}"
        if not pattern.search(name):
            continue
        try:
            case = json.loads(file.read_text(encoding="utf-8"))
            wanted, document, given = case["answer"], case["input"], case.get("services", services)
            answer = await EmbeddedEngine(bundle.load(folder, given), _DEADLINE_S).evaluate(document)
        except (EngineFailure, OSError, ValueError, TypeError, LookupError) as error:
            outcomes[name] = f"{type(error).__name__}: {error}"
        else:
            outcomes[name] = "" if answer == wanted else f"answered {json.dumps(answer)}"
    return outcomes
