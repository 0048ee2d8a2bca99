"""The decider: what it asks of its engine."""

from __future__ import annotations

from gateway.policy.decider import judged_headers


def test_the_headers_that_policies_read_are_known_or_all_are():
    assert judged_headers([("request", "method"), ("identity",)]) == frozenset()
    assert judged_headers([("request", "headers", "x-a"), ("request", "headers", "x_b", "more")]) == {"x-a", "x_b"}
    for whole in ((), ("request",), ("request", "headers")):
        assert judged_headers([("request", "headers", "x-a"), whole]) is None
