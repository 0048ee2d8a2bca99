"""The transforms of one body in a row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.obligations import BodyInfo, ObligationContext, WholeBody
from gateway.core.reasons import Refusal
from gateway.obligations.body import WHOLE_BODY_BYTES, OpenBody, open_body
from gateway.obligations.steps import Step

INFO = BodyInfo("text/plain", "utf-8", "POST")


class Echo:
    """A stream that stays `lag` bytes behind and puts `mark` at its end."""

    direction, mode = "response", "stream"

    def __init__(self, lag=0, mark=b""):
        self.lag, self.mark, self.waiting = lag, mark, b""

    def open(self, params, info, context):
        return type(self)(self.lag, self.mark)

    def feed(self, chunk):
        data = self.waiting + chunk
        border = max(0, len(data) - self.lag)
        self.waiting = data[border:]
        return data[:border]

    def finish(self):
        return self.waiting + self.mark


class Whole:
    direction, mode = "response", "whole"

    def __init__(self, function):
        self.function = function

    def open(self, params, info, context):
        return WholeBody(self.function)


def opened(*handlers, direction="response", info=INFO):
    steps = [Step(f"step{number}", handler, {}) for number, handler in enumerate(handlers)]
    return open_body(steps, direction, info, ObligationContext())


def fed(body, *chunks):
    """What came out, chunk by chunk, with what is left at the end."""
    return [body.feed(chunk) for chunk in chunks] + [body.finish()]


def test_streams_run_one_after_the_other_and_what_is_left_runs_through_the_rest():
    body = opened(Echo(lag=2, mark=b"<1>"), Echo(lag=1, mark=b"<2>"))
    assert body.mode == "stream"
    assert fed(body, b"ab", b"cd") == [b"", b"a", b"bcd<1><2>"]


def test_one_whole_step_makes_the_whole_row_whole():
    calls = []
    body = opened(Echo(lag=3, mark=b"!"), Whole(lambda data: calls.append(data) or data.upper()), Echo(mark=b"?"))
    assert body.mode == "whole"
    assert fed(body, b"ab", b"cd") == [b"", b"", b"ABCD!?"]
    assert calls == [b"abcd!"]


def test_a_whole_step_sees_an_empty_body_too():
    assert fed(opened(Whole(lambda data: data or Refusal("body_invalid")))) == [Refusal("body_invalid")]


def test_a_stream_that_nothing_was_fed_is_finished():
    assert fed(opened(Echo(mark=b"end"))) == [b"end"]


@pytest.mark.parametrize("problem", [ValueError("canary"), Refusal("body_invalid"), None, "text", 3])
@pytest.mark.parametrize("where", ["feed", "finish", "open"])
def test_what_a_transform_raises_refuses_or_makes_up_ends_the_body_for_good(problem, where):
    class Broken(Echo):
        def fail(self):
            if isinstance(problem, Exception):
                raise problem
            return problem

        def open(self, params, info, context):
            return self.fail() if where == "open" else self

        def feed(self, chunk):
            return self.fail() if where == "feed" else chunk

        def finish(self):
            return self.fail() if where == "finish" else b""

    expected = "body_invalid" if isinstance(problem, Refusal) else "obligation_failed"
    body = opened(Broken())
    outcomes = fed(body, b"a", b"b") if isinstance(body, OpenBody) else [body]
    assert isinstance(outcomes[-1], Refusal)
    assert outcomes[-1].reason == expected
    assert "canary" not in outcomes[-1].detail
    if isinstance(body, OpenBody):
        assert body.feed(b"c") == outcomes[-1]
        assert body.finish() == outcomes[-1]


@pytest.mark.parametrize(("direction", "reason"), [("request", "body_too_large"), ("response", "obligation_failed")])
def test_a_whole_body_has_a_bound(direction, reason):
    body = opened(Whole(bytes.upper), direction=direction)
    assert body.feed(b"x" * WHOLE_BODY_BYTES) == b""
    over = body.feed(b"x")
    assert isinstance(over, Refusal)
    assert over.reason == reason
    assert body.finish() == over
    declared = BodyInfo("text/plain", "utf-8", "POST", declared_length=WHOLE_BODY_BYTES + 1)
    at_once = opened(Whole(bytes.upper), direction=direction, info=declared)
    assert isinstance(at_once, Refusal)
    assert at_once.reason == reason


def test_a_stream_has_no_bound():
    body = opened(Echo(), info=BodyInfo("text/plain", "utf-8", "POST", declared_length=1 << 40))
    for _ in range(10):
        assert len(body.feed(b"x" * (1 << 20))) == 1 << 20


def test_a_body_says_whether_it_changed():
    same, other, stream = opened(Whole(lambda data: data)), opened(Whole(bytes.upper)), opened(Echo())
    for body in (same, other, stream):
        fed(body, b"a")
    assert (same.changed, other.changed, stream.changed) == (False, True, True)


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 5), st.integers(0, 5))
def test_the_cuts_of_the_network_change_nothing(chunks, lag, other_lag):
    body = opened(Echo(lag, b"<1>"), Echo(other_lag, b"<2>"))
    assert b"".join(fed(body, *chunks)) == b"".join(chunks) + b"<1><2>"
