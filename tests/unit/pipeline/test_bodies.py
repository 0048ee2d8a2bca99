"""The body of a request under its obligations."""

import pytest

from gateway.core.obligations import WholeBody
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.obligations.body import OpenBody
from gateway.obligations.plan import NO_PLAN, Plan
from gateway.obligations.steps import Step
from gateway.pipeline.bodies import open_request_body, transform_whole, with_new_body
from gateway.pipeline.headers import Forward

DIGESTS = [("content-digest", "x"), ("signature", "x"), ("accept", "*/*")]


class Upper:
    direction = "request"

    def __init__(self, mode):
        self.mode = mode

    def open(self, params, info, context):
        return WholeBody(bytes.upper)


def forward(mode=None, *headers, length=3):
    facts = RequestFacts("POST", "a.example", "/", (), "", (), headers, "h2", length, Peer("127.0.0.1", 1), "127.0.0.1")
    plan = NO_PLAN if mode is None else Plan(("upper",), request_bodies=(Step("upper", Upper(mode), {}),))
    return Forward("id", facts, Route("svc", "a.example", upstream="svc"), list(DIGESTS), plan)


def test_without_an_obligation_there_is_no_transform():
    assert open_request_body(forward()) is None


@pytest.mark.parametrize(
    ("headers", "length", "reason"),
    [
        ([("content-encoding", "gzip")], 3, "body_type_unsupported"),
        ([("content-type", "a/b"), ("content-type", "c/d")], 3, "body_type_unsupported"),
        ([], 99_999_999, "body_too_large"),
    ],
)
def test_a_body_that_cannot_be_transformed_is_refused_at_its_head(headers, length, reason):
    refusal = open_request_body(forward("whole", *headers, length=length))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason


@pytest.mark.parametrize("mode", ["stream", "whole"])
def test_a_body_that_changed_loses_its_digests_and_signatures(mode):
    request = forward(mode)
    body = open_request_body(request)
    assert isinstance(body, OpenBody)
    assert transform_whole(body, b"abc") == b"ABC"
    assert with_new_body(request, body).headers == [("accept", "*/*")]
    assert request.headers == DIGESTS


def test_a_whole_body_that_stayed_as_it_was_keeps_them():
    request = forward("whole")
    body = open_request_body(request)
    assert isinstance(body, OpenBody)
    assert transform_whole(body, b"ABC") == b"ABC"
    assert with_new_body(request, body) is request
