"""`gateway policy reasons`: the policies' own reason codes with their texts, and what each rule says about itself."""

from __future__ import annotations

from dataclasses import asdict

from gateway.cli import output
from gateway.cli.policy.folder import load_bundle, policy_folder
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption

_COLUMNS = ("code", "status", "what", "fix")
_RULE_COLUMNS = ("rule", "title", "description", "place")


def policy_reasons(config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """List the policies' own reason codes as people see them, and the annotated rules."""
    from gateway.policy.bundle.annotations import annotations_of  # noqa: PLC0415

    loaded, _ = policy_folder(config)
    bundle = load_bundle(loaded, json_wanted=json_wanted)
    reasons = [asdict(entry) for _, entry in sorted(bundle.reasons.items())]
    rules = [
        {
            "rule": entry.about.removeprefix("data."),
            "title": entry.title,
            "description": entry.description,
            "place": f"{entry.file}:{entry.line}",
        }
        for entry in annotations_of(bundle.policy.annotations())
    ]
    if json_wanted:
        output.as_json({"reasons": reasons, "rules": rules})
        return
    output.rows(_COLUMNS, reasons, json_wanted=False, empty="the policies describe no reason code of their own")
    output.rows(_RULE_COLUMNS, rules, json_wanted=False, empty="no rule has a metadata annotation")
