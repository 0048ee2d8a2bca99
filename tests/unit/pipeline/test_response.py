"""A response on its way back: this hop's headers and ours removed, obligations enforced, its transform opened."""

import pytest

from gateway.core.obligations import WholeBody
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Identity
from gateway.obligations.plan import NO_PLAN, Plan
from gateway.obligations.steps import Step
from gateway.pipeline.headers import Forward
from gateway.pipeline.response import ResponseHead, enforce_response, enforce_trailers

FACTS = RequestFacts("GET", "a.example", "/", (), "", (), (), "h2", 0, Peer("127.0.0.1", 1), "127.0.0.1")
IDENTITY = Identity("https://id", "u", "jwt", "s", 2e9, department="sales")
OURS = ("x-gateway-decision", "id")


def forward(plan=NO_PLAN, **changes):
    return Forward("id", FACTS, Route("svc", "a.example", upstream="svc"), [], plan, **changes)


class Remover:
    def response_head(self, headers, params):
        if any(name == "x-bad" for name, _ in headers):
            raise ValueError
        return [*(field for field in headers if field[0] != "x-secret"), ("cache-control", "no-store")]


class Shout:
    direction, mode = "response", "whole"
    opened = None

    def open(self, params, info, context):
        Shout.opened = info, context
        return WholeBody(bytes.upper)


REMOVED = Plan(("remove",), response_heads=(Step("remove", Remover(), {}),))
SHOUTED = Plan(("shout",), response_bodies=(Step("shout", Shout(), {}),))


def test_a_response_loses_what_is_not_its_own_to_say():
    head = enforce_response(
        forward(),
        200,
        [("connection", "close, X-Hop"), ("x-hop", "1"), ("keep-alive", "5"), ("x-gateway-reason", "evil"),
         ("alt-svc", "h3"),
         ("x_gateway_decision", "evil"), ("te", "x"), ("x-kept", "1"), ("set-cookie", "a"), ("set-cookie", "b")],
        has_body=True,
    )  # fmt: skip
    assert head == ResponseHead([("x-kept", "1"), ("set-cookie", "a"), ("set-cookie", "b"), OURS])


def test_trailers_obey_the_same_rules_and_gain_nothing():
    trailers = [("grpc-status", "0"), ("x-secret", "1"), ("content-length", "5"), ("x-gateway-subject", "root")]
    assert enforce_trailers(forward(REMOVED), trailers) == [("grpc-status", "0")]
    assert enforce_trailers(forward(REMOVED), [("x-bad", "1"), ("grpc-status", "0")]) == []
    assert enforce_trailers(forward(), trailers) == [("grpc-status", "0"), ("x-secret", "1")]


def test_an_obligation_that_fails_on_the_response_is_a_denial():
    refusal = enforce_response(forward(REMOVED), 200, [("x-bad", "1")], has_body=True)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "obligation_failed"


DESCRIBES = [
    ("content-length", "9"), ("etag", '"x"'), ("last-modified", "x"), ("accept-ranges", "bytes"), ("digest", "x"),
    ("content-md5", "x"), ("content-digest", "x"), ("repr-digest", "x"), ("signature", "x"), ("signature-input", "x"),
]  # fmt: skip


@pytest.mark.parametrize("has_body", [True, False])
def test_what_described_the_body_before_its_transform_goes_for_head_and_304_too(has_body):
    head = enforce_response(forward(SHOUTED), 200, [*DESCRIBES, ("date", "now")], has_body=has_body)
    assert isinstance(head, ResponseHead)
    assert head.headers == [("date", "now"), OURS]
    assert (head.body is not None) is has_body


def test_what_describes_the_body_stays_where_nothing_changes_it():
    head = enforce_response(forward(REMOVED), 200, DESCRIBES, has_body=True)
    assert isinstance(head, ResponseHead)
    assert head.headers[: len(DESCRIBES)] == DESCRIBES


def test_trailers_of_a_transformed_body_do_not_describe_the_old_one():
    trailers = [("content-digest", "x"), ("etag", "x"), ("server-timing", "x")]
    assert enforce_trailers(forward(SHOUTED), trailers) == [("server-timing", "x")]
    assert enforce_trailers(forward(), trailers) == trailers


def test_a_transform_knows_its_body_and_whom_it_is_for():
    headers = [("content-type", 'Text/Plain; Charset="UTF-8"'), ("content-length", "3")]
    enforce_response(forward(SHOUTED, identity=IDENTITY), 203, headers, has_body=True)
    info, context = Shout.opened
    assert (info.media_type, info.charset, info.method, info.status) == ("text/plain", "utf-8", "GET", 203)
    assert (info.declared_length, info.content_encoding) == (3, "identity")
    assert (context.subject, context.department, context.keys) == ("10|https://id|u", "sales", {})


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, [("content-encoding", "gzip")]),
        (200, [("content_encoding", "br")]),
        (200, [("content-encoding", "identity"), ("content-encoding", "zstd")]),
        (206, []),
        (200, [("content-range", "bytes 0-9/100")]),
        (200, [("content-type", "text/plain"), ("content-type", "text/html")]),
        (200, [("content-type", "text/plain, text/html")]),
        (200, [("content-type", "text/plain; charset=utf-8; charset=utf-16")]),
        (200, [("content-length", "99999999")]),
    ],
)
def test_a_body_that_no_transform_can_read_in_full_is_refused_at_its_head(status, headers):
    refusal = enforce_response(forward(SHOUTED), status, headers, has_body=True)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "obligation_failed"
    assert isinstance(enforce_response(forward(), status, headers, has_body=True), ResponseHead)
