"""`gateway policy check`: every problem of the policies, with its place, a caret and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import output
from gateway.cli.policy.folder import policy_folder, problem_document, show_problems
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from gateway.policy.bundle.model import BundleError

_STRICT = "Also unused rules of libraries, shadowed names, unused variables and imports (OPA's strict mode)."


def policy_check(
    config: ConfigOption = DEFAULT_CONFIG,
    strict: Annotated[bool, typer.Option("--strict", help=_STRICT)] = False,
    json_wanted: JsonOption = False,
) -> None:
    """Load the policies as the gateway does, and say what is wrong with them; warnings count with --strict."""
    from gateway.policy.bundle import lint  # noqa: PLC0415
    from gateway.policy.bundle.loader import examine, service_data  # noqa: PLC0415

    loaded, folder = policy_folder(config)
    bundle, problems = examine(folder, service_data(loaded.services), strict=True)
    warnings: Sequence[BundleError] = ()
    if bundle is not None:
        choose = lint.remarks if strict else lint.warnings
        warnings = choose(bundle.policy, bundle.data)
        if strict:
            problems, warnings = [*warnings, *lint.strict_problems(bundle.policy)], ()
    if json_wanted:
        output.as_json(
            {
                "problems": [problem_document(problem) for problem in problems],
                "warnings": [problem_document(problem) for problem in warnings],
            }
        )
    else:
        show_problems(folder, problems, json_wanted=False)
        show_problems(folder, warnings, json_wanted=False, word="warning")
        output.say(f"policy check: {_count(problems, 'problem')}, {_count(warnings, 'warning')}")
    if problems:
        raise typer.Exit(1)


def _count(entries: Sequence[object], word: str) -> str:
    return f"{len(entries)} {word}{'' if len(entries) == 1 else 's'}"
