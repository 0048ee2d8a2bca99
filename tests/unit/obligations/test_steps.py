import pytest

from gateway.obligations.steps import ObligationFailed, run


@pytest.mark.parametrize("problem", [ValueError, KeyError, RecursionError, OSError, NotImplementedError])
def test_whatever_a_plugin_raises_is_a_failed_obligation_that_says_where_and_no_value(problem):
    def fail(_):
        raise problem("canary")

    with pytest.raises(ObligationFailed) as caught:
        run("probe", fail, "canary")
    assert str(caught.value).startswith(f"probe: {problem.__name__} at test_steps.py:")
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_a_plugin_answers_is_passed_on():
    assert run("probe", max, 1, 2) == 2
