"""`gateway policy explain`: which rules fired, and which expression stopped each of the others, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from gateway.cli import output
from gateway.cli.policy.folder import load_bundle, policy_folder
from gateway.cli.policy.subject import SubjectArgument, read_subject, show_missing
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.operations.errors import ActionFailed


def policy_explain(
    subject: SubjectArgument, config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False
) -> None:
    """Say why the policies answer what they answer about an input file, a case or a recorded decision."""
    from gateway.policy.contract import document_json  # noqa: PLC0415
    from gateway.policy.engines.compiled_policy import PolicyRejected  # noqa: PLC0415

    loaded, _ = policy_folder(config)
    asked = read_subject(subject, loaded)
    bundle = load_bundle(loaded, json_wanted=json_wanted, services=asked.services)
    try:
        explained = bundle.policy.explain(document_json(asked.document).encode())
    except PolicyRejected as rejected:
        raise ActionFailed(f"The policies fail: {rejected}.", "The answer is a denial.") from rejected
    if json_wanted:
        output.as_json({**explained, "missing": asked.missing(bundle.reads)})
        return
    show_missing(asked, bundle.reads)
    output.say(_answer(explained["answer"]))
    for rule in explained["fired"]:
        fired = "holds by default" if rule.get("default") else "holds"
        output.say(f"{_rule(rule)} {fired}  ({rule['file']}:{rule['row']})")
    for rule in explained["failed"]:
        output.say(f"{_rule(rule)} does not hold: {_line(rule)} is false or undefined  ({rule['file']}:{rule['row']})")
    for code in _reasons(explained["answer"]):
        from gateway.core.reasons import reason  # noqa: PLC0415

        text = bundle.reasons.get(code) or reason(code)
        output.note(f"[yellow]{escape(code)}[/] {escape(f'{text.what} {text.fix}'.strip())}")


def _answer(answer: Any) -> str:
    if not isinstance(answer, Mapping):
        return "The policies give no answer: the request is denied (policy_undefined)."
    reasons = ", ".join(_reasons(answer))
    return output.printable(f"The answer is {answer.get('effect')}" + (f", because of {reasons}." if reasons else "."))


def _reasons(answer: Any) -> list[str]:
    from gateway.core.reasons import is_code  # noqa: PLC0415

    reasons = answer.get("reasons") if isinstance(answer, Mapping) else None
    return [code for code in reasons if is_code(code)] if isinstance(reasons, list) else []


def _rule(rule: Mapping[str, Any]) -> str:
    return output.printable(rule["rule"].removeprefix("data."))


def _line(rule: Mapping[str, Any]) -> str:
    return output.printable(" ".join(rule["text"].split()))
