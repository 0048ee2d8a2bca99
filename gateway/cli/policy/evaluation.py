"""`gateway policy eval`: the policies' answer about one input."""

from __future__ import annotations

from typing import Any

import typer
from rich.markup import escape

from gateway.cli import output
from gateway.cli.policy.folder import load_bundle, policy_folder
from gateway.cli.policy.subject import SubjectArgument, read_subject, show_missing
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.operations.errors import ActionFailed

_DEADLINE_S = 5.0


def policy_eval(
    subject: SubjectArgument, config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False
) -> None:
    """Decide about an input file, a case, or a recorded decision again, with the policies as they are now."""
    from gateway.core.reasons import Refusal  # noqa: PLC0415
    from gateway.policy.contract import document_json, parse_answer  # noqa: PLC0415
    from gateway.policy.engines.compiled_policy import EvaluationCancelled, EvaluationFailed  # noqa: PLC0415

    loaded, _ = policy_folder(config)
    asked = read_subject(subject, loaded)
    bundle = load_bundle(loaded, json_wanted=json_wanted, services=asked.services)
    try:
        answer = bundle.policy.evaluate(document_json(asked.document).encode(), _DEADLINE_S)
    except EvaluationFailed as failed:
        place = f"{failed.problem.file}:{failed.problem.row}: " if failed.problem.file else ""
        raise ActionFailed(
            f"The policies fail: {place}{failed.problem.message}.", "The answer is a denial."
        ) from failed
    except EvaluationCancelled as cancelled:
        raise ActionFailed(f"No answer within {_DEADLINE_S:g} s.", "The answer is a denial.") from cancelled
    decision = parse_answer(answer)
    refused = decision.reason if isinstance(decision, Refusal) else ""
    if json_wanted:
        document: dict[str, Any] = {"answer": answer, "refusal": refused or None, "policy": bundle.version}
        if asked.event is not None:
            document |= {"recorded": asked.event, "missing": asked.missing(bundle.reads)}
        output.as_json(document)
    else:
        show_missing(asked, bundle.reads)
        if asked.event is not None:
            then = f"{asked.event.get('effect')} ({', '.join(asked.event.get('reasons', ()))})"
            output.note(f"[dim]recorded[/] {escape(output.printable(then))}, policy {asked.event.get('policy')}")
        if refused:
            output.note(f"[bold red]denied[/] {escape(refused)}: the answer is outside of the contract")
        output.as_json(answer)
    if refused:
        raise typer.Exit(1)
