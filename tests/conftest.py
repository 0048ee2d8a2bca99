"""What every test needs: the OPA library, built from the sources that are here (a finished one is only copied)."""

import pytest

from gateway.policy.engines.opa_bridge import build

# Asserts in shared worlds say what they compared, as those in tests do.
pytest.register_assert_rewrite("tests.support")


def pytest_configure(config: pytest.Config) -> None:
    # Once for a run: the workers of pytest-xdist come later.
    if not hasattr(config, "workerinput"):
        try:
            build.build()
        except build.BuildFailed as failed:
            raise pytest.UsageError(str(failed)) from failed
