import pytest

from gateway.core.decision import Obligation
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.obligations.plan import NO_PLAN, PHASES, ObligationFailed, Obligations
from plugins.obligations import builtin

FACTS = RequestFacts("GET", "a.example", "/", (), "", (), (), "h2", 0, Peer("127.0.0.1", 1), "127.0.0.1")


class Probe:
    """A plugin that does what a test tells it."""

    def __init__(self, kind="probe", phases=PHASES, act=lambda *_: None):
        self.kind = kind
        self.phases = frozenset(phases)
        self.act = act

    def parse(self, params):
        if "bad" in params:
            raise ValueError("bad")
        return params

    def request(self, headers, *_):
        return self.act(headers)

    def response(self, headers, *_):
        self.act(headers)

    def body(self, _, body, *__):
        return self.act(body)


def plan(act, phases=PHASES):
    return Obligations([Probe(act=act, phases=phases)]).plan((Obligation("probe"),), PHASES)


def test_no_obligation_is_the_one_empty_plan():
    empty = Obligations(builtin()).plan((), frozenset())
    assert empty is NO_PLAN
    assert not empty.needs_body
    headers = [("a", "b")]
    assert empty.enforce_request(headers, FACTS) is None
    empty.enforce_response(headers)
    assert empty.enforce_body("text/plain", b"x") == b"x"
    assert headers == [("a", "b")]


@pytest.mark.parametrize(
    ("obligation", "phases"),
    [
        (Obligation("unheard_of"), PHASES),
        (Obligation("probe", {"bad": 1}), PHASES),
        (Obligation("probe"), frozenset({"request", "response"})),
        (Obligation("probe"), frozenset()),
    ],
)
def test_what_cannot_be_enforced_is_refused_before_anything_is_forwarded(obligation, phases):
    answer = Obligations([Probe()]).plan((obligation,), phases)
    assert isinstance(answer, Refusal)
    assert answer.reason == "obligation_unsupported"


def test_one_unsupported_obligation_refuses_the_others_too():
    answer = Obligations(builtin()).plan((Obligation("no_store"), Obligation("unheard_of")), PHASES)
    assert isinstance(answer, Refusal)


def test_the_order_is_the_plugins_own_and_not_policys():
    known = Obligations(builtin())
    one, other = Obligation("no_store"), Obligation("read_only")
    assert known.plan((one, other), PHASES).kinds == known.plan((other, one), PHASES).kinds == ("read_only", "no_store")


def test_a_plan_acts_in_the_phases_of_its_plugins_alone():
    made = plan(lambda _: 1 / 0, phases={"request"})
    assert not made.needs_body
    made.enforce_response([])
    assert made.enforce_body("", b"x") == b"x"
    with pytest.raises(ObligationFailed):
        made.enforce_request([], FACTS)


def test_a_plugin_may_refuse():
    made = plan(lambda _: Refusal("read_only"))
    assert made.enforce_request([], FACTS) == Refusal("read_only")


@pytest.mark.parametrize("problem", [ValueError, KeyError, RecursionError, OSError, NotImplementedError])
def test_whatever_a_plugin_raises_is_a_failed_obligation_that_says_where_and_no_value(problem):
    def fail(_):
        raise problem("canary")

    made = plan(fail)
    for enforce in (
        lambda: made.enforce_request([], FACTS),
        lambda: made.enforce_response([]),
        lambda: made.enforce_body("application/json", b"canary"),
    ):
        with pytest.raises(ObligationFailed) as caught:
            enforce()
        assert str(caught.value).startswith(f"probe: {problem.__name__} at test_plan.py:")
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("answer", [True, "no", 0, b""])
def test_a_request_phase_that_answers_nonsense_has_failed(answer):
    with pytest.raises(ObligationFailed):
        plan(lambda _: answer).enforce_request([], FACTS)


@pytest.mark.parametrize("answer", [None, "text", 3])
def test_a_body_phase_that_answers_no_bytes_has_failed(answer):
    with pytest.raises(ObligationFailed):
        plan(lambda _: answer).enforce_body("", b"x")


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
        plan(lambda headers: headers.append(field)).enforce_request([], FACTS)


def test_a_second_copy_of_a_credential_is_seen():
    with pytest.raises(ObligationFailed):
        plan(lambda headers: headers.append(headers[0])).enforce_request([("cookie", "a=b")], FACTS)


def test_what_was_there_may_stay_and_may_go():
    headers = [("authorization", "Bearer x"), ("cookie", "a=b"), ("x-gateway-decision", "d")]
    assert plan(lambda found: found.pop(1) and None).enforce_request(headers, FACTS) is None
    assert headers == [("authorization", "Bearer x"), ("x-gateway-decision", "d")]


@pytest.mark.parametrize(
    "field", [("content-length", "1"), ("transfer-encoding", "chunked"), ("x-gateway-decision", "z"), ("a", "b\nc")]
)
def test_a_response_header_that_a_plugin_may_not_make_up_is_seen(field):
    with pytest.raises(ObligationFailed):
        plan(lambda headers: headers.append(field)).enforce_response([])


def test_two_plugins_of_one_kind_or_of_an_unknown_phase_are_a_mistake():
    with pytest.raises(ValueError, match="twice"):
        Obligations([Probe(), Probe()])
    with pytest.raises(ValueError, match="phase"):
        Obligations([Probe(phases={"later"})])
    with pytest.raises(ValueError, match="phase"):
        Obligations([Probe(phases=())])
