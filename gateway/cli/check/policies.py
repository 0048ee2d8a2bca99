"""The part of `gateway check` that loads the policies: each problem stands in its own Rego or data file."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config import Loaded, Problem
from gateway.policy.bundle import lint
from gateway.policy.bundle.loader import examine, service_data
from gateway.policy.bundle.model import BundleError


def policies(loaded: Loaded) -> tuple[list[Problem], list[Problem]]:
    """What keeps the policy folder from being loaded, for whichever engine is configured; and what is a warning."""
    policy = loaded.config.policy
    if not policy.path.is_dir():
        fix = "Run `gateway init` elsewhere and copy its policies/ here, or correct `policy.path`."
        return [loaded.document.problem(("policy", "path"), f"There is no folder {policy.path}.", fix)], []
    bundle, errors = examine(policy.path, service_data(loaded.config.services), strict=True)
    warnings: Sequence[BundleError] = ()
    if bundle is not None:
        warnings = lint.warnings(bundle.policy, bundle.data)
        bundle.close()
    return [_problem(loaded, error) for error in errors], [_problem(loaded, error) for error in warnings]


def _problem(loaded: Loaded, error: BundleError) -> Problem:
    file = loaded.config.policy.path / error.file
    return Problem(file, error.line, (error.column or 1) if error.line else 0, "", f"{error.message}.", error.fix)
