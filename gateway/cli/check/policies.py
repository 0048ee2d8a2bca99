"""The part of `gateway check` that loads the policies: each problem stands in its own Rego or data file."""

from __future__ import annotations

from gateway.config import Loaded, Problem
from gateway.policy.bundle.loader import examine, service_data


def policies(loaded: Loaded) -> list[Problem]:
    """What keeps the policy folder from being loaded, for whichever engine is configured."""
    policy = loaded.config.policy
    if not policy.path.is_dir():
        fix = "Run `gateway init` elsewhere and copy its policies/ here, or correct `policy.path`."
        return [loaded.document.problem(("policy", "path"), f"There is no folder {policy.path}.", fix)]
    _, errors = examine(policy.path, service_data(loaded.config.services), strict=True)
    return [
        Problem(policy.path / error.file, error.line, 1 if error.line else 0, "", f"{error.message}.", error.fix)
        for error in errors
    ]
