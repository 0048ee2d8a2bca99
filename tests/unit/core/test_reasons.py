"""Reason codes."""

import pytest

from gateway.core.reasons import REASONS, is_code, reason


@pytest.mark.parametrize("text", ["ok", "a_b_1", "x" * 64])
def test_a_code_is_lower_snake_case(text):
    assert is_code(text)


@pytest.mark.parametrize("text", ["", "a", "A_b", "1a", "a-b", "a b", "x" * 65, "a\n", None, 5, b"ab"])
def test_anything_else_is_no_code(text):
    assert not is_code(text)


def test_every_reason_is_a_code_with_a_status():
    for code, entry in REASONS.items():
        assert is_code(code)
        assert entry.code == code
        assert 200 <= entry.status < 600
        assert entry.what
        assert entry.fix or entry.status == 200


def test_a_code_of_a_policy_author_is_forbidden():
    assert reason("own_rule").status == 403
