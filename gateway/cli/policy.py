"""`gateway policy …`: test the policies with the engine that decides."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption, group
from gateway.operations.errors import ActionFailed

policy_app = group("Policies: test them.")
_DEADLINE_S = 5.0


@policy_app.command("test")
def policy_test(config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """Run the *_test.rego files of the policy folder, and its cases/*.json, in the embedded engine.

    A case is {"input": ..., "answer": ...}: a whole decision, for the configured services or the `services` it brings.
    """
    from gateway.config import load  # noqa: PLC0415
    from gateway.policy.bundle.loader import service_data  # noqa: PLC0415

    loaded = load(config)
    folder = loaded.policy.path
    services = service_data(loaded.services)
    results = {**_rules(folder, services), **asyncio.run(_cases(folder, services))}
    failed = {name: why for name, why in results.items() if why}
    if json_wanted:
        output.as_json({"passed": sorted(results.keys() - failed.keys()), "failed": failed})
    else:
        for name, why in failed.items():
            output.note(f"[bold red]failed[/] {escape(name)}\n  {escape(why)}")
        output.say(f"policy test: {len(results) - len(failed)} passed, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)


def _rules(folder: Path, services: dict[str, Any]) -> dict[str, str]:
    from gateway.policy.bundle import loader as bundle  # noqa: PLC0415
    from gateway.policy.bundle.model import BundleError  # noqa: PLC0415
    from gateway.policy.engines.compiled_policy import PolicyRejected  # noqa: PLC0415
    from gateway.policy.engines.opa_tools import run_tests  # noqa: PLC0415

    try:
        whole = bundle.load(folder, services, strict=True)
        names = sorted(file for file in folder.rglob("*_test.rego"))
        tests = [(str(file.relative_to(folder)), file.read_text(encoding="utf-8")) for file in names]
        run = run_tests([*whole.modules, *tests], whole.data_json)
    except (BundleError, PolicyRejected, OSError, ValueError) as error:
        raise ActionFailed(f"The policies cannot be tested: {error}") from error
    return {result.name: result.why for result in run.results}


async def _cases(folder: Path, services: dict[str, Any]) -> dict[str, str]:
    from gateway.core.ports.pipeline import EngineFailure  # noqa: PLC0415
    from gateway.policy.bundle import loader as bundle  # noqa: PLC0415
    from gateway.policy.engines.embedded import EmbeddedEngine  # noqa: PLC0415

    outcomes: dict[str, str] = {}
    for file in sorted((folder / "cases").glob("*.json")):
        try:
            case = json.loads(file.read_text(encoding="utf-8"))
            wanted, document, given = case["answer"], case["input"], case.get("services", services)
            answer = await EmbeddedEngine(bundle.load(folder, given), _DEADLINE_S).evaluate(document)
        except (EngineFailure, OSError, ValueError, TypeError, LookupError) as error:
            outcomes[f"cases/{file.name}"] = f"{type(error).__name__}: {error}"
        else:
            outcomes[f"cases/{file.name}"] = "" if answer == wanted else f"answered {json.dumps(answer)}"
    return outcomes
