"""`gateway policy fmt`: policies as `opa fmt` writes them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import output
from gateway.cli.policy.folder import policy_folder
from gateway.cli.shell import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.operations.errors import ActionFailed


def policy_fmt(
    config: ConfigOption = DEFAULT_CONFIG,
    write: Annotated[bool, typer.Option("--write", "-w", help="Write the files; without it they are listed.")] = False,
    json_wanted: JsonOption = False,
) -> None:
    """List the *.rego files that are not formatted (exit code 1), or format them with --write."""
    from gateway.policy.engines.compiled_policy import PolicyRejected  # noqa: PLC0415
    from gateway.policy.engines.opa_tools import formatted  # noqa: PLC0415

    _, folder = policy_folder(config)
    changed: list[str] = []
    failed: dict[str, str] = {}
    for file in sorted(folder.rglob("*.rego")):
        name = file.relative_to(folder).as_posix()
        try:
            before = file.read_bytes().decode("utf-8")
            after = formatted(name, before)
        except PolicyRejected as rejected:
            failed[name] = str(rejected)
        except (OSError, UnicodeDecodeError) as error:
            failed[name] = f"{name}: {type(error).__name__}"
        else:
            if after != before:
                changed.append(name)
                if write:
                    _replace(file, after)
    if json_wanted:
        output.as_json({"changed": changed, "failed": failed, "written": write})
    else:
        for name in changed:
            output.say(f"{'formatted' if write else 'not formatted'}: {name}")
        for message in failed.values():
            output.fail(output.printable(message), "Correct the syntax.")
        output.say(f"policy fmt: {len(changed)} {'formatted' if write else 'to format'}, {len(failed)} failed")
    if failed or (changed and not write):
        raise typer.Exit(1)


def _replace(file: Path, text: str) -> None:
    """Write a file in one step, with the mode it has: a gateway that watches it never reads half of it."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=".", delete=False, encoding="utf-8", newline=""
        ) as new:
            new.write(text)
        os.chmod(new.name, file.stat().st_mode & 0o7777)  # noqa: PTH101
        Path(new.name).replace(file)
    except OSError as error:
        raise ActionFailed(f"{file} cannot be written: {error.strerror or error}.") from error
