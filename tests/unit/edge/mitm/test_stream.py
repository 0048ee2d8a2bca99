"""One request between its verdict and its end, without a network."""

import pytest

from gateway.core.canonical import admit
from gateway.core.obligations import WholeBody
from gateway.core.reasons import Refusal
from gateway.core.request import RawRequest
from gateway.core.routes import Route
from gateway.edge.mitm.request_half import LOCAL_BODY_BYTES
from gateway.obligations.body import WHOLE_BODY_BYTES
from gateway.obligations.plan import NO_PLAN, Plan
from gateway.obligations.steps import Step
from gateway.pipeline.headers import Forward
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
    """Turns a whole body round; one that is "bad" raises."""

    kind = "reverse"
    mode = "whole"

    def __init__(self, direction):
        self.direction = direction

    def open(self, params, info, context):
        return WholeBody(self.reverse)

    def reverse(self, body):
        if body == b"bad":
            raise ValueError
        return body[::-1]


class Shout:
    """Turns a streamed body to upper case, a byte later than it came; "!" raises, "?" refuses."""

    kind = "shout"
    mode = "stream"

    def __init__(self, direction):
        self.direction = direction
        self.waiting = b""

    def open(self, params, info, context):
        return Shout(self.direction)

    def feed(self, chunk):
        if b"!" in chunk:
            raise ValueError
        if b"?" in chunk:
            return Refusal("body_invalid")
        data, self.waiting = self.waiting + chunk[:-1], chunk[-1:]
        return data.upper()

    def finish(self):
        return self.waiting.upper()


REVERSED = Plan(("reverse",), response_bodies=(Step("reverse", Reverse("response"), {}),))
REVERSED_REQUEST = Plan(("reverse",), request_bodies=(Step("reverse", Reverse("request"), {}),))
SHOUTED = Plan(("shout",), response_bodies=(Step("shout", Shout("response"), {}),))
SHOUTED_REQUEST = Plan(("shout",), request_bodies=(Step("shout", Shout("request"), {}),))


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
    wire.hear(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % (2 * WHOLE_BODY_BYTES))
    wire.hear(b"x" * (WHOLE_BODY_BYTES + 1))
    assert wire.to_client.startswith(b"HTTP/1.1 500 ")
    assert not wire.servers[0].connected


def test_a_body_that_says_it_is_too_large_to_enforce_is_dropped_at_its_head():
    wire = Wire(plan=REVERSED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
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


# ---- bodies under obligations ----


def chunks(data):
    """The chunks of everything that came after a head, None where the last one is missing."""
    found = []
    while data:
        size, _, data = data.partition(b"\r\n")
        if size == b"0":
            return found
        found.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return None


def split(data):
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def test_a_request_body_streams_through_its_transform_framed_anew():
    wire = Wire(plan=SHOUTED_REQUEST)
    wire.say(POST)
    wire.say(b"def")
    head, body = split(wire.to_upstream[0])
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert chunks(body) == [b"AB", b"CDE", b"F"]
    wire.hear(OK)
    wire.say(GET)
    assert len(wire.servers) == 1
    assert b"transfer-encoding" not in wire.to_upstream[0][-len(GET) :]


@pytest.mark.parametrize(("data", "status"), [(b"d!f", b"500"), (b"d?f", b"400")])
def test_a_streamed_request_that_cannot_be_enforced_is_aborted_and_has_no_end(data, status):
    wire = Wire(plan=SHOUTED_REQUEST)
    wire.say(POST)
    wire.say(data)
    assert chunks(split(wire.to_upstream[0])[1]) is None
    assert not wire.servers[0].connected
    assert wire.to_client.startswith(b"HTTP/1.1 " + status)


def test_a_streamed_request_that_fails_at_its_end_is_aborted():
    class Late(Shout):
        def open(self, params, info, context):
            return Late(self.direction)

        def finish(self):
            raise ValueError

    wire = Wire(plan=Plan(("late",), request_bodies=(Step("late", Late("request"), {}),)))
    wire.say(POST + b"def")
    assert chunks(split(wire.to_upstream[0])[1]) is None
    assert not wire.servers[0].connected
    assert wire.to_client.startswith(b"HTTP/1.1 500 ")


def test_a_streamed_request_that_fails_after_an_early_answer_is_a_cut():
    wire = Wire(plan=SHOUTED_REQUEST)
    wire.say(POST)
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nearly")
    wire.say(b"d!f")
    assert wire.to_client.count(b"HTTP/1.1") == 1
    assert not wire.client.connected
    assert not wire.servers[0].connected


def test_a_whole_request_body_reaches_the_upstream_once_and_changed():
    wire = Wire(plan=REVERSED_REQUEST)
    wire.say(b"POST / " + HEAD + b"transfer-encoding: chunked\r\ncontent-digest: x\r\n\r\n3\r\nabc\r\n")
    assert wire.servers == []
    wire.say(b"3\r\ndef\r\n0\r\n\r\n")
    head, body = split(wire.to_upstream[0])
    assert b"content-length: 6" in head
    assert b"content-digest" not in head
    assert b"transfer-encoding" not in head
    assert body == b"fedcba"
    wire.hear(OK)
    wire.say(GET)
    assert len(wire.servers) == 1


def test_a_whole_request_body_that_cannot_be_enforced_never_reaches_the_upstream():
    wire = Wire(plan=REVERSED_REQUEST)
    wire.say(b"POST / " + HEAD + b"content-length: 3\r\n\r\nbad")
    assert wire.servers == []
    assert wire.to_client.startswith(b"HTTP/1.1 500 ")
    wire.say(GET)
    assert len(wire.servers) == 1


def test_a_whole_request_body_has_a_bound_and_the_routes_limit_too():
    wire = Wire(plan=REVERSED_REQUEST)
    wire.say(b"POST / " + HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % (2 * WHOLE_BODY_BYTES))
    wire.say(b"x" * (WHOLE_BODY_BYTES + 1))
    assert wire.to_client.startswith(b"HTTP/1.1 413 ")
    small = Wire(plan=REVERSED_REQUEST, route=Route("svc", "a.example", upstream="svc", body_limit_bytes=4))
    small.say(b"POST / " + HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n")
    assert small.to_client.startswith(b"HTTP/1.1 413 ")
    assert wire.servers == small.servers == []


def test_100_continue_invites_a_body_that_is_transformed_as_a_whole_once():
    wire = Wire(plan=REVERSED_REQUEST)
    wire.say(b"POST / " + HEAD + b"content-length: 3\r\nexpect: 100-continue\r\n\r\n")
    assert wire.to_client == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.say(b"abc")
    wire.hear(OK)
    assert wire.to_client.count(b"HTTP/1.1 100 ") == 1


def test_an_interrupt_while_a_request_body_is_gathered_is_an_answer():
    wire = Wire(plan=REVERSED_REQUEST)
    wire.say(POST)
    wire.interrupt("session_revoked")
    assert wire.to_client.startswith(b"HTTP/1.1 401 ")
    wire.say(b"def")
    assert wire.servers == []


def test_a_request_without_a_body_needs_no_transform():
    for plan in (REVERSED_REQUEST, SHOUTED_REQUEST):
        wire = Wire(plan=plan)
        wire.say(GET)
        assert wire.to_upstream == [GET]


def test_a_response_body_streams_through_its_transform_framed_anew():
    wire = Wire(plan=SHOUTED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\netag: x\r\n\r\nabc")
    head, body = split(wire.to_client)
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert b"etag" not in head
    assert body == b"2\r\nAB\r\n"
    wire.hear(b"def")
    assert chunks(split(wire.to_client)[1]) == [b"AB", b"CDE", b"F"]
    wire.say(GET)
    assert len(wire.servers) == 1


def test_what_a_transform_has_left_goes_out_before_the_trailers():
    wire = Wire(plan=SHOUTED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ndigest: x\r\nx-y: z\r\n\r\n")
    assert split(wire.to_client)[1] == b"2\r\nAB\r\n1\r\nC\r\n0\r\nx-y: z\r\n\r\n"


@pytest.mark.parametrize("data", [b"d!f", b"d?f"])
def test_a_streamed_response_that_cannot_be_enforced_is_reset_and_has_no_end(data):
    wire = Wire(plan=SHOUTED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc")
    wire.hear(data)
    assert chunks(split(wire.to_client)[1]) is None
    assert "Abort" in wire.commands
    assert not wire.client.connected
    assert not wire.servers[0].connected


@pytest.mark.parametrize("plan", [REVERSED, SHOUTED])
@pytest.mark.parametrize(
    "head",
    [b"content-encoding: gzip\r\n", b"content-range: bytes 0-1/2\r\n", b"content-type: a/b\r\ncontent-type: c/d\r\n"],
)
def test_a_response_that_no_transform_can_read_is_a_denial_before_its_head(plan, head):
    wire = Wire(plan=plan)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\n" + head + b"content-length: 6\r\n\r\nsecret")
    assert wire.to_client.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in wire.to_client


@pytest.mark.parametrize("plan", [REVERSED, SHOUTED])
@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\netag: x\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\netag: x\r\n\r\n"),
    ],
)
def test_a_response_without_a_body_says_nothing_of_the_body_it_would_have_had(plan, method, answer):
    wire = Wire(plan=plan)
    wire.say(GET.replace(b"GET", method))
    wire.hear(answer)
    head, body = split(wire.to_client)
    assert body == b""
    assert head.split(b"\r\n")[1:] == [b"x-gateway-decision: id"]
    wire.say(GET)
    assert len(wire.servers) == 1


def test_a_response_that_ends_with_its_connection_is_whole_and_one_that_breaks_off_is_reset():
    wire = Wire(plan=SHOUTED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\n\r\nabc")
    wire.end()
    assert chunks(split(wire.to_client)[1]) == [b"AB", b"C"]
    wire = Wire(plan=SHOUTED)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc")
    wire.end()
    assert chunks(split(wire.to_client)[1]) is None


def resumed(plan, body):
    """A request that was held with its body, and goes on under a plan when its sender has come back with a GET."""
    wire = Wire(lambda facts: LocalRequest(facts, None))
    post = RawRequest(b"POST", b"", b"/held", [(b"host", b"a.example"), (b"content-length", b"%d" % len(body))], "1.1")
    facts = admit(post, wire.peer)
    wire.resumed = Forward("id", facts, wire.route, list(facts.headers), plan), body
    wire.say(GET)
    return wire


@pytest.mark.parametrize(("plan", "sent"), [(REVERSED_REQUEST, b"cba"), (SHOUTED_REQUEST, b"ABC"), (NO_PLAN, b"abc")])
def test_the_body_of_a_request_that_was_held_goes_through_its_transform_too(plan, sent):
    wire = resumed(plan, b"abc")
    head, body = split(wire.to_upstream[0])
    assert head.startswith(b"POST /held ")
    assert b"content-length: 3" in head
    assert body == sent


@pytest.mark.parametrize(
    ("plan", "body"), [(REVERSED_REQUEST, b"bad"), (SHOUTED_REQUEST, b"a!"), (SHOUTED_REQUEST, b"?")]
)
def test_a_request_that_was_held_and_cannot_be_enforced_never_reaches_the_upstream(plan, body):
    wire = resumed(plan, body)
    assert wire.servers == []
    assert wire.to_client.startswith(b"HTTP/1.1 400 " if body == b"?" else b"HTTP/1.1 500 ")


def test_a_worker_that_holds_too_many_bodies_takes_no_further_one():
    wire = Wire(plan=REVERSED_REQUEST)
    wire.roomy = False
    wire.say(POST)
    assert wire.to_client.startswith(b"HTTP/1.1 503 ")
    assert b"overloaded" in wire.to_client
    assert wire.servers == []
    local = Wire(lambda facts: LocalRequest(facts, None))
    local.roomy = False
    local.say(POST)
    assert local.to_client.startswith(b"HTTP/1.1 503 ")
    answered = Wire(plan=REVERSED)
    answered.roomy = False
    answered.say(GET)
    answered.hear(OK)
    assert answered.to_client.startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("plan", [REVERSED_REQUEST, REVERSED])
def test_a_body_that_went_on_is_held_no_longer(plan):
    wire = Wire(plan=plan)
    wire.say(POST + b"def")
    wire.hear(OK)
    assert wire.exchanges[0].buffered_bytes == 0
