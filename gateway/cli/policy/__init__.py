"""`gateway policy ...`: check, test, try out, explain and format the policies, in the engine that decides."""

from __future__ import annotations

from gateway.cli.policy.check import policy_check
from gateway.cli.policy.deps import policy_deps
from gateway.cli.policy.evaluation import policy_eval
from gateway.cli.policy.explanation import policy_explain
from gateway.cli.policy.fmt import policy_fmt
from gateway.cli.policy.reasons import policy_reasons
from gateway.cli.policy.tests import policy_test
from gateway.cli.shell import group

policy_app = group("Policies: check, test, try out, explain and format them.")
policy_app.command("check")(policy_check)
policy_app.command("test")(policy_test)
policy_app.command("eval")(policy_eval)
policy_app.command("explain")(policy_explain)
policy_app.command("fmt")(policy_fmt)
policy_app.command("deps")(policy_deps)
policy_app.command("reasons")(policy_reasons)

__all__ = ["policy_app"]
