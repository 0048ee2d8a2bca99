"""One request between its verdict and its end, without a network."""

import pytest

from gateway.core.reasons import Refusal
from gateway.core.routes import Route
from gateway.edge.mitm.stream import ENFORCED_BODY_BYTES, LOCAL_BODY_BYTES
from gateway.obligations.plan import Plan, Step
from gateway.pipeline.verdicts import LocalRequest
from gateway.replies.replies import deny
from tests.support.edge_wire import Wire

HEAD = b"HTTP/1.1\r\nhost: a.example\r\n"
GET = b"GET / " + HEAD + b"\r\n"
POST = b"POST / " + HEAD + b"content-length: 6\r\n\r\nabc"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def refuse(facts):
    return deny(None if isinstance(facts, Refusal) else facts, ("role_missing",), "id")


class Reverse:
    kind = "reverse"
    phases = frozenset({"body"})

    def body(self, content_type, body, params):
        if body == b"bad":
            raise ValueError
        return body[::-1]


REVERSED = Plan(("reverse",), at_body=(Step(Reverse(), {}),))


def test_nothing_goes_upstream_before_the_verdict():
    wire = Wire()
    wire.held = True
    wire.say(POST)
    assert wire.servers == []
    wire.let_go()
    assert wire.to_upstream[0].endswith(b"\r\n\r\nabc")


def test_nothing_goes_upstream_after_a_denial():
    wire = Wire(refuse)
    wire.say(GET)
    assert wire.servers == []
    assert wire.to_client.startswith(b"HTTP/1.1 403 ")
    wire.say(GET)
    assert wire.to_client.count(b"HTTP/1.1 403 ") == 2


def test_no_verdict_at_all_is_a_denial():
    wire = Wire(lambda facts: None)
    wire.say(GET)
    assert wire.to_client.startswith(b"HTTP/1.1 500 ")
    assert wire.servers == []


def test_a_denied_upload_of_a_little_keeps_the_connection():
    wire = Wire(refuse)
    wire.say(POST)
    wire.say(b"def" + GET)
    assert wire.to_client.count(b"HTTP/1.1 403 ") == 2


def test_a_denied_upload_of_much_ends_the_connection():
    wire = Wire(refuse)
    wire.say(b"POST / " + HEAD + b"content-length: 1000000\r\n\r\nabc")
    assert b"connection: close" in wire.to_client
    assert wire.commands[-1] == "Linger"


def test_a_head_request_is_refused_without_a_body():
    wire = Wire(refuse)
    wire.say(GET.replace(b"GET", b"HEAD"))
    head, _, body = wire.to_client.partition(b"\r\n\r\n")
    assert body == b""
    assert b"content-length: " in head


def test_an_upstream_that_cannot_be_reached_is_told():
    wire = Wire(dial_error="refused")
    wire.say(GET)
    assert wire.to_client.startswith(b"HTTP/1.1 502 ")
    assert b"upstream_unreachable" in wire.to_client


def test_a_body_over_the_limit_is_cut_before_it_is_whole():
    wire = Wire(route=Route("svc", "a.example", upstream="svc", body_limit_bytes=4))
    wire.say(POST)
    wire.say(b"de")
    assert wire.to_client.startswith(b"HTTP/1.1 413 ")
    assert wire.to_upstream[0].endswith(b"\r\n\r\nabc")
    assert not wire.servers[0].connected


def test_the_gateways_own_paths_get_the_whole_body():
    wire = Wire(lambda facts: LocalRequest(facts, None))
    wire.say(POST)
    wire.say(b"def")
    assert wire.to_client.endswith(b"\r\n\r\nfedcba")
    assert wire.servers == []


def test_the_gateways_own_paths_take_no_large_body():
    wire = Wire(lambda facts: LocalRequest(facts, None))
    wire.say(b"POST / " + HEAD + b"content-length: 100000\r\n\r\n" + b"x" * (LOCAL_BODY_BYTES + 1))
    assert wire.to_client.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_is_enforced_goes_out_whole_and_changed():
    wire = Wire(plan=REVERSED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert wire.to_client == b""
    wire.hear(b"3\r\ndef\r\n0\r\n\r\n")
    assert wire.to_client.endswith(b"content-length: 6\r\n\r\nfedcba")
    wire.say(GET)
    assert len(wire.servers) == 1


def test_a_body_that_cannot_be_enforced_is_dropped():
    wire = Wire(plan=REVERSED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")
    assert wire.to_client.startswith(b"HTTP/1.1 500 ")
    assert b"obligation_failed" in wire.to_client
    assert b"bad" not in wire.to_client


def test_a_body_that_is_too_large_to_enforce_is_dropped():
    wire = Wire(plan=REVERSED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
    wire.hear(b"x" * (ENFORCED_BODY_BYTES + 1))
    assert wire.to_client.startswith(b"HTTP/1.1 500 ")
    assert not wire.servers[0].connected


def test_a_body_that_breaks_off_while_it_is_held_is_told():
    wire = Wire(plan=REVERSED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
    wire.end()
    assert wire.to_client.startswith(b"HTTP/1.1 502 ")


def test_an_interrupt_before_the_answer_is_an_answer():
    wire = Wire()
    wire.say(POST)
    wire.interrupt("request_timeout")
    assert wire.to_client.startswith(b"HTTP/1.1 408 ")
    assert not wire.servers[0].connected
    wire.interrupt("request_timeout")
    assert wire.to_client.count(b"HTTP/1.1") == 1


def test_an_interrupt_in_the_middle_of_the_answer_is_a_cut():
    wire = Wire()
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
    wire.interrupt("upstream_timeout")
    assert not wire.client.connected
    assert not wire.servers[0].connected


def test_an_early_answer_reaches_an_http1_client_whose_upload_goes_on():
    wire = Wire()
    wire.say(POST)
    wire.hear(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert wire.to_client.endswith(b"0\r\n\r\n")
    assert not wire.over
    wire.say(b"def" + GET)
    assert wire.to_upstream[0].count(b"abcdef") == 1
    assert len(wire.exchanges) == 2
    assert len(wire.servers) == 1


def test_an_upstream_that_leaves_after_an_early_answer_breaks_nothing():
    wire = Wire()
    wire.say(POST)
    wire.hear(OK)
    wire.end()
    wire.say(b"def" + GET)
    assert wire.client.connected
    assert len(wire.servers) == 2


def test_100_continue_comes_after_the_verdict_alone():
    wire = Wire()
    wire.held = True
    wire.say(b"POST / " + HEAD + b"content-length: 3\r\nexpect: 100-continue\r\n\r\n")
    assert wire.to_client == b""
    wire.let_go()
    assert wire.to_client.startswith(b"HTTP/1.1 100 ")


@pytest.mark.parametrize("drain", [False, True])
def test_a_drained_worker_says_so(drain):
    wire = Wire(refuse)
    wire.draining = drain
    wire.say(GET)
    assert (b"connection: close" in wire.to_client) is drain
