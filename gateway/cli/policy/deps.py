"""`gateway policy deps`: what the decision depends on."""

from __future__ import annotations

from gateway.cli import output
from gateway.cli.policy.folder import load_bundle, policy_folder
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption

_TITLES = {"input": "read of the input", "data": "read of the data", "rules": "rules that are asked for"}


def policy_deps(config: ConfigOption = DEFAULT_CONFIG, json_wanted: JsonOption = False) -> None:
    """List the input, the data and the rules that the decision depends on, and what the decision memory keys on."""
    loaded, _ = policy_folder(config)
    depends = load_bundle(loaded, json_wanted=json_wanted).policy.dependencies()
    if json_wanted:
        output.as_json(depends)
        return
    for name, title in _TITLES.items():
        output.note(f"[bold]{title}[/]")
        for line in depends[name]:
            output.say(f"  {output.printable(line)}")
    output.note("[bold]key of the decision memory[/]")
    for path in depends["reads"]:
        output.say(f"  {output.printable('.'.join(('input', *path)))}")
