import pytest

from gateway.core.capabilities import ALL_BODIES, ALL_HEADS, NO_CAPABILITIES, EdgeCapabilities
from gateway.core.decision import Obligation
from gateway.core.obligations import ObligationContext, WholeBody
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.obligations.plan import NO_PLAN, Obligations, Plan
from gateway.obligations.steps import ObligationFailed
from plugins.obligations import builtin


def facts(protocol="h2", method="GET"):
    return RequestFacts(method, "a.example", "/", (), "", (), (), protocol, 0, Peer("127.0.0.1", 1), "127.0.0.1")


FACTS = facts()
EDGE = EdgeCapabilities("probe", ALL_HEADS, ALL_BODIES)


class Probe:
    """A plugin without a capability."""

    def __init__(self, kind="probe", act=lambda headers: headers):
        self.kind = kind
        self.act = act

    def parse(self, params):
        if "bad" in params:
            raise ValueError("bad")
        return params


class RequestProbe(Probe):
    def request_head(self, headers, params, facts):
        return self.act(headers)


class ResponseProbe(Probe):
    def response_head(self, headers, params):
        return self.act(headers)


class BodyProbe(Probe):
    def __init__(self, direction="response", mode="whole", **how):
        super().__init__(**how)
        self.direction, self.mode = direction, mode

    def open(self, params, info, context):
        return WholeBody(bytes.upper)


def plan(*probes, capabilities=EDGE, request=FACTS):
    answer = Obligations(probes).plan(tuple(Obligation(probe.kind) for probe in probes), request, capabilities)
    assert isinstance(answer, Plan)
    return answer


def test_no_obligation_is_the_one_empty_plan():
    empty = Obligations(builtin()).plan((), FACTS, NO_CAPABILITIES)
    assert empty is NO_PLAN
    assert empty.enforce_request([("a", "b")], FACTS) == [("a", "b")]
    assert empty.enforce_response([("a", "b")]) == [("a", "b")]
    assert empty.open_request_body(FACTS, ObligationContext()) is None
    assert empty.open_response_body("GET", 200, [], ObligationContext(), has_body=True) is None


@pytest.mark.parametrize(
    ("obligation", "capabilities", "request_facts"),
    [
        (Obligation("unheard_of"), EDGE, FACTS),
        (Obligation("head", {"bad": 1}), EDGE, FACTS),
        (Obligation("head"), EdgeCapabilities("e", frozenset({"response"}), ALL_BODIES), FACTS),
        (Obligation("answer"), EdgeCapabilities("e", frozenset({"request"}), ALL_BODIES), FACTS),
        (Obligation("body"), EdgeCapabilities("e", ALL_HEADS, ALL_BODIES - {("response", "whole")}), FACTS),
        (Obligation("body"), EdgeCapabilities("e", ALL_HEADS), FACTS),
        (Obligation("head"), NO_CAPABILITIES, FACTS),
        (Obligation("body"), EDGE, facts("websocket")),
        (Obligation("body"), EDGE, facts("grpc")),
        (Obligation("upload"), EDGE, facts("websocket")),
        (Obligation("upload"), EDGE, facts("grpc")),
    ],
)
def test_what_cannot_be_enforced_is_refused_before_anything_is_forwarded(obligation, capabilities, request_facts):
    known = Obligations(
        [
            RequestProbe("head"),
            ResponseProbe("answer"),
            BodyProbe(kind="body"),
            BodyProbe(kind="upload", direction="request", mode="stream"),
        ]
    )
    answer = known.plan((obligation,), request_facts, capabilities)
    assert isinstance(answer, Refusal)
    assert answer.reason == "obligation_unsupported"


@pytest.mark.parametrize("probe", [RequestProbe(), ResponseProbe()])
def test_a_head_is_enforced_whatever_the_protocol(probe):
    for protocol in ("h2", "http/1.1", "websocket", "grpc"):
        assert plan(probe, request=facts(protocol)).kinds == ("probe",)


@pytest.mark.parametrize("direction", ["request", "response"])
@pytest.mark.parametrize("mode", ["stream", "whole"])
def test_an_edge_needs_no_more_than_the_plugin_does(direction, mode):
    enough = EdgeCapabilities("e", bodies=frozenset({(direction, mode)}))
    made = plan(BodyProbe(direction, mode), capabilities=enough)
    assert bool(made.request_bodies) is (direction == "request")
    assert bool(made.response_bodies) is (direction == "response")


def test_one_unsupported_obligation_refuses_the_others_too():
    answer = Obligations(builtin()).plan((Obligation("no_store"), Obligation("unheard_of")), FACTS, EDGE)
    assert isinstance(answer, Refusal)


def test_the_order_is_the_plugins_own_and_not_policys():
    known = Obligations(builtin())
    no_store, read_only = Obligation("no_store"), Obligation("read_only")
    for order in ((no_store, read_only), (read_only, no_store)):
        made = known.plan(order, FACTS, EDGE)
        assert isinstance(made, Plan)
        assert made.kinds == ("read_only", "no_store")


def test_a_plan_acts_through_the_capabilities_of_its_plugins_alone():
    made = plan(RequestProbe(act=lambda _: 1 / 0))
    assert made.enforce_response([]) == []
    assert made.open_response_body("GET", 200, [], ObligationContext(), has_body=True) is None
    with pytest.raises(ObligationFailed):
        made.enforce_request([], FACTS)


def test_a_plugin_may_refuse():
    assert plan(RequestProbe(act=lambda _: Refusal("read_only"))).enforce_request([], FACTS) == Refusal("read_only")


def test_a_refusal_is_the_last_word():
    made = plan(RequestProbe("one", lambda _: Refusal("read_only")), RequestProbe("two", lambda _: 1 / 0))
    assert made.enforce_request([], FACTS) == Refusal("read_only")


@pytest.mark.parametrize("answer", [None, True, "no", 0, b"", [1], [("a",)], [("a", 1)], [["a", "b"]], {"a": "b"}])
@pytest.mark.parametrize("probe", [RequestProbe, ResponseProbe])
def test_a_head_handler_that_answers_nonsense_has_failed(answer, probe):
    made = plan(probe(act=lambda _: answer))
    with pytest.raises(ObligationFailed):
        made.enforce_request([], FACTS) if made.request_heads else made.enforce_response([])


@pytest.mark.parametrize(
    "field",
    [
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("x-gateway-subject", "root"),
        ("X_Gateway_Subject", "root"),
        ("x-forwarded-for", "10.0.0.1"),
        ("host", "b.example"),
        ("content-length", "0"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("x-fine", "a\r\nb: c"),
        ("x-fine", "\u20ac"),
        ("x fine", "a"),
        ("X-Fine", "a"),
        ("", "a"),
    ],
)
def test_a_request_header_that_a_plugin_may_not_make_up_is_seen(field):
    with pytest.raises(ObligationFailed):
        plan(RequestProbe(act=lambda headers: [*headers, field])).enforce_request([], FACTS)


def test_a_second_copy_of_a_credential_is_seen():
    with pytest.raises(ObligationFailed):
        plan(RequestProbe(act=lambda headers: [*headers, headers[0]])).enforce_request([("cookie", "a=b")], FACTS)


def test_what_was_there_may_stay_and_may_go():
    headers = [("authorization", "Bearer x"), ("cookie", "a=b"), ("x-gateway-decision", "d")]
    enforced = plan(RequestProbe(act=lambda given: [given[0], given[2]])).enforce_request(headers, FACTS)
    assert enforced == [("authorization", "Bearer x"), ("x-gateway-decision", "d")]


def test_a_plugin_that_changes_its_list_in_place_changes_nothing():
    def steal(headers):
        headers.append(("cookie", "a=b"))
        return ()

    headers = [("a", "b")]
    assert plan(RequestProbe(act=steal)).enforce_request(headers, FACTS) == []
    assert headers == [("a", "b")]


@pytest.mark.parametrize(
    "field", [("content-length", "1"), ("transfer-encoding", "chunked"), ("x-gateway-decision", "z"), ("a", "b\nc")]
)
def test_a_response_header_that_a_plugin_may_not_make_up_is_seen(field):
    with pytest.raises(ObligationFailed):
        plan(ResponseProbe(act=lambda headers: [*headers, field])).enforce_response([])


CONDITIONS = [("if-none-match", "*"), ("if-modified-since", "x")]
ASKS = [("accept-encoding", "gzip"), ("Accept_Encoding", "br"), ("range", "bytes=0-9"), ("if-range", "x")]


@pytest.mark.parametrize(("method", "kept"), [("GET", []), ("HEAD", []), ("PUT", CONDITIONS), ("POST", CONDITIONS)])
def test_the_service_is_asked_for_a_whole_unencoded_response(method, kept):
    headers = [*ASKS, ("accept", "*/*"), *CONDITIONS]
    enforced = plan(BodyProbe()).enforce_request(headers, facts(method=method))
    assert enforced == [("accept", "*/*"), *kept, ("accept-encoding", "identity")]


def test_no_head_handler_brings_an_encoding_back():
    greedy = RequestProbe("greedy", lambda headers: [*headers, ("accept-encoding", "gzip")])
    assert plan(BodyProbe(kind="body"), greedy).enforce_request([], FACTS) == [("accept-encoding", "identity")]


def test_a_request_is_asked_for_as_it_came_where_its_own_body_alone_is_transformed():
    assert plan(BodyProbe("request")).enforce_request(ASKS, FACTS) == ASKS


def test_plugins_that_no_plan_could_use_are_a_mistake():
    with pytest.raises(ValueError, match="two obligation plugins"):
        Obligations([RequestProbe(), RequestProbe()])
    with pytest.raises(ValueError, match="no capability"):
        Obligations([Probe()])
    for direction, mode in (("both", "whole"), ("request", "later")):
        with pytest.raises(ValueError, match="unknown direction or mode"):
            Obligations([BodyProbe(direction, mode)])
