"""The data path: every port that raises, hangs or answers nonsense is a denial with its own reason."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.core.capabilities import ALL_BODIES, ALL_HEADS, EdgeCapabilities
from gateway.core.cookies import SESSION as SESSION_COOKIE
from gateway.core.decision import NO_SIGNAL, Decision, Obligation
from gateway.core.ports.pipeline import Network
from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import REASONS, Refusal
from gateway.core.request import Peer, RawRequest
from gateway.core.routes import Route, RouteTable
from gateway.core.subject import Device, Identity, Role, Session, subject_key
from gateway.obligations.plan import Obligations
from gateway.pipeline.headers import Forward
from gateway.pipeline.verdicts import LocalRequest
from gateway.replies.replies import Reply
from tests.support.pipelines import pipeline_of

CAPABILITIES = EdgeCapabilities("mitm", ALL_HEADS, ALL_BODIES)
PEER = Peer("10.0.0.9", 4711, chain=(b"der",), cert_sha256="hash", sni="a.example")
DEVICE = Device("dev-1", "hash")
IDENTITY = Identity("https://id", "u", "jwt", "s", 2e9, name="Ada", email="ada@example.com", roles=(Role("staff"),))
SESSION = Session("session-1", 1.0)
STAFF = Route("staff", "a.example", upstream="staff")
USER = Route("user", "u.example", upstream="user", plane="user")
ALLOW = Decision("allow", ("policy_ok",))


class Ports:
    """Friendly ports; `wrong` maps a port's name to what it answers, raises or does instead."""

    version = "v1"
    answers = {
        "check": None, "verify": DEVICE, "read": IDENTITY, "bind": SESSION, "lookup": Network(),
        "assess": NO_SIGNAL, "decide": ALLOW,
        "sign": "a.b.c", "record": None, "challenge": None, "count": None,
    }  # fmt: skip

    def __init__(self, **wrong):
        self.wrong = wrong
        self.calls = []
        self.events = []
        self.decisions = []
        self.failures = []

    def _do(self, name, *args):
        self.calls.append(name)
        answer = self.wrong.get(name, self.answers[name])
        if isinstance(answer, BaseException):
            raise answer
        return answer(*args) if callable(answer) else answer

    async def _await(self, name, *args):
        answer = self._do(name, *args)
        return await answer if asyncio.iscoroutine(answer) else answer

    def check(self):
        return self._do("check")

    async def verify(self, *args):
        return await self._await("verify", *args)

    async def read(self, *args):
        return await self._await("read", *args)

    async def again(self, identity, facts, route):
        return await self._await("read", facts, route)

    async def bind(self, *args, before=None, in_use=True):
        return await self._await("bind", *args)

    def lookup(self, *args):
        return self._do("lookup", *args)

    def record_failure(self, reason, ip, network, *, account=""):
        self.failures.append((reason, ip, account))

    async def assess(self, *args):
        return await self._await("assess", *args)

    @property
    def reason_texts(self):
        return {}

    async def decide(self, *args):
        return await self._await("decide", *args)

    def sign(self, *args):
        return self._do("sign", *args)

    def record(self, event):
        self._do("record", event)
        self.events.append(event)

    def challenge(self, reasons, facts, step_up):
        return self._do("challenge", reasons, facts, step_up)

    def decision(self, service, effect, reason, seconds, *, zero_log):
        self._do("count")
        self.decisions.append((service, effect, reason, zero_log))


def pipeline(ports, routes=(STAFF, USER), **changes):
    settings = {
        "routes": RouteTable(routes), "quarantine": ports, "devices": ports, "readers": (ports,), "binder": ports,
        "networks": ports, "assessor": ports, "decider": ports, "obligations": Obligations([]), "signer": ports,
        "recorder": ports, "metrics": ports, "challenge": ports.challenge, "staff_hosts": frozenset({"a.example"}),
        "deadline_s": 0.05,
    }  # fmt: skip
    return pipeline_of(**settings | changes)


async def judge(ports, target=b"/", *, host=b"a.example", headers=(), peer=PEER, method=b"GET", flaw=None, **changes):
    raw = RawRequest(method, b"", target, [(b"host", host), *headers], "1.1")
    return await pipeline(ports, **changes).judge(raw, peer, CAPABILITIES, flaw)


def hang(*_):
    return asyncio.sleep(60)


# ---- the good way ----


async def test_a_good_request_goes_on_through_every_stage_in_order():
    ports = Ports()
    verdict = await judge(ports, b"/a?b=c")
    assert isinstance(verdict, Forward)
    assert verdict.route is STAFF
    assert ports.calls == ["check", "verify", "read", "bind", "lookup", "assess", "decide", "sign", "record", "count"]
    [event] = ports.events
    assert (event["effect"], event["reasons"], event["decision"]) == ("allow", ["policy_ok"], verdict.decision_id)
    assert ports.decisions == [("staff", "allow", "policy_ok", False)]


async def test_what_goes_upstream_is_what_was_judged_and_what_we_say():
    verdict = await judge(
        Ports(), headers=[(b"authorization", b"Bearer x"), (b"x-mine", b"1"), (b"expect", b"100-continue")]
    )
    names = [name for name, _ in verdict.headers]
    assert dict(verdict.headers)["x-forwarded-for"] == "10.0.0.9"
    assert names == [
        "x-mine",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-gateway-decision",
        "x-gateway-jwt-assertion",
    ]


async def test_without_an_identity_nothing_is_bound_or_signed():
    ports = Ports(read=None)
    verdict = await judge(ports, headers=[(b"authorization", b"Basic x")])
    assert isinstance(verdict, Forward)
    assert ("authorization", "Basic x") in verdict.headers
    assert not {"bind", "sign"} & set(ports.calls)


async def test_the_first_reader_that_knows_decides():
    first, second = Ports(read=None), Ports()
    assert isinstance(await judge(Ports(), readers=(first, second)), Forward)
    second = Ports(read=Refusal("token_expired"))
    assert (await judge(Ports(), readers=(second, first))).reason == "token_expired"
    assert first.calls == ["read", "read"]
    # A credential that is no good does not hide a good one beside it.
    assert isinstance(await judge(Ports(), readers=(second, Ports())), Forward)


async def test_plain_headers_are_printable_whatever_the_issuer_says():
    odd = Identity("https://id", "\u00fc\n", "jwt", "s", 2e9, name=" a%\x00", email="")
    route = Route("staff", "a.example", identity_headers=True)
    headers = dict((await judge(Ports(read=odd), routes=(route,))).headers)
    assert headers["x-gateway-subject"] == "%C3%BC%0A"
    assert headers["x-gateway-name"] == " a%25%00"
    assert "x-gateway-email" not in headers


@pytest.mark.parametrize("path", [b"/.gateway/jwks.json", b"/.well-known/oauth-protected-resource/x"])
async def test_the_gateways_own_paths_are_local_and_ask_no_policy(path):
    ports = Ports()
    verdict = await judge(ports, path)
    assert verdict == LocalRequest(verdict.facts, DEVICE)
    assert ports.calls == ["check", "verify", "count"]
    assert (await judge(Ports(verify=Refusal("device_revoked")), path)).device is None


# ---- refusals are values ----


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        ("check", "node_quarantined"),
        ("verify", "device_revoked"),
        ("read", "token_expired"),
        ("bind", "session_revoked"),
        ("decide", "policy_timeout"),
    ],
)
async def test_a_refusal_of_a_port_is_the_answer(port, reason):
    ports = Ports(**{port: Refusal(reason, "why")})
    verdict = await judge(ports)
    assert isinstance(verdict, Reply)
    assert (verdict.reason, verdict.status) == (reason, REASONS[reason].status)
    assert ports.calls[-2:] == ["record", "count"] or ports.calls[-3:] == ["challenge", "record", "count"]
    assert (ports.events[0]["reasons"], ports.events[0]["detail"]) == ([reason], "why")


async def test_no_device_is_refused_where_one_is_needed():
    assert (await judge(Ports(verify=None))).reason == "device_required"
    route = Route("staff", "a.example", device_required=False)
    assert isinstance(await judge(Ports(verify=None), routes=(route,)), Forward)


async def test_a_session_cookie_without_its_device_is_told_apart_and_bound_to_nothing():
    cookie = (b"cookie", f"{SESSION_COOKIE}={'a' * 43}".encode())
    stolen = Ports(verify=None, bind=Refusal("binding_mismatch", "session-1"))
    assert (await judge(stolen, headers=[cookie])).reason == "binding_mismatch"
    assert stolen.failures == [("binding_mismatch", "10.0.0.9", subject_key("https://id", "u"))]
    unbound = Ports(verify=None)
    assert (await judge(unbound, headers=[cookie])).reason == "device_required"
    assert "decide" not in unbound.calls
    for headers in ([cookie, (b"authorization", b"Bearer x")], [(b"cookie", cookie[1] + b"a")], [cookie, cookie], []):
        ports = Ports(verify=None)
        assert (await judge(ports, headers=headers)).reason == "device_required"
        assert "read" not in ports.calls


@pytest.mark.parametrize(
    ("effect", "reason", "status"),
    [("deny", "role_missing", 403), ("login", "login_required", 401), ("step_up", "mfa_required", 401)],
)
async def test_every_effect_but_allow_is_a_reply(effect, reason, status):
    ports = Ports(decide=Decision(effect, (reason,)))
    verdict = await judge(ports)
    assert (verdict.reason, verdict.status) == (reason, status)
    assert ports.events[0]["effect"] == effect


async def test_an_obligation_that_nobody_knows_is_a_denial():
    verdict = await judge(Ports(decide=Decision("allow", ("policy_ok",), (Obligation("sing"),))))
    assert verdict.reason == "obligation_unsupported"


class Sing:
    kind = "sing"

    def parse(self, params):
        return params

    def response_head(self, headers, params):
        return headers


async def test_an_obligation_that_this_edge_cannot_do_is_a_denial_and_stays_one():
    sung = Ports(decide=Decision("allow", ("policy_ok",), (Obligation("sing"),)))
    made = pipeline(sung, obligations=Obligations([Sing()]))
    raw = RawRequest(b"GET", b"", b"/", [(b"host", b"a.example")], "1.1")
    assert (await made.judge(raw, PEER, EdgeCapabilities("small"))).reason == "obligation_unsupported"
    assert sung.events[0]["edge"] == "small"
    forward = await made.judge(raw, PEER, CAPABILITIES)
    assert forward.plan.kinds == ("sing",)
    assert await made.reevaluate(forward) is None
    assert (await made.reevaluate(replace(forward, capabilities=EdgeCapabilities("small")))).reason == (
        "obligation_unsupported"
    )


async def test_an_allow_for_a_refusals_reason_is_still_an_allow_and_a_deny_for_a_good_reason_a_denial():
    assert isinstance(await judge(Ports(decide=Decision("allow", ("role_missing",)))), Forward)
    verdict = await judge(Ports(decide=Decision("deny", ("policy_ok",))))
    assert (verdict.status, verdict.reason) == (403, "default_deny")


@pytest.mark.parametrize(
    ("target", "host", "reason"),
    [(b"/../x", b"a.example", "malformed_request"), (b"/", b"b.example", "misdirected_request")],
)
async def test_a_request_that_is_not_admitted_reaches_no_port(target, host, reason):
    ports = Ports()
    assert (await judge(ports, target, host=host)).reason == reason
    assert ports.calls == ["record", "count"]


async def test_a_flaw_the_edge_found_is_recorded_like_every_refusal():
    ports = Ports()
    assert (await judge(ports, flaw=Refusal("malformed_request", "chunk"))).status == 400
    assert ports.events[0]["detail"] == "chunk"


async def test_no_route_is_a_reason():
    peer = Peer("10.0.0.9", 1, sni="n.example")
    assert (await judge(Ports(), host=b"n.example", peer=peer)).reason == "route_not_found"


async def test_a_length_over_the_routes_limit_is_refused_before_anybody_is_asked():
    ports = Ports()
    route = Route("staff", "a.example", body_limit_bytes=10)
    verdict = await judge(ports, method=b"POST", headers=[(b"content-length", b"11")], routes=(route,))
    assert (verdict.reason, verdict.status) == ("body_too_large", 413)
    assert ports.calls == ["check", "record", "count"]


# ---- ports that fail ----

AWAITED = ["verify", "read", "bind", "assess", "decide"]
RAISED = {"assess": "risk_unavailable", "decide": "policy_error"}
LATE = {"read": "issuer_unavailable", "assess": "risk_unavailable", "decide": "policy_timeout"}


@pytest.mark.parametrize("port", ["check", *AWAITED, "sign"])
@pytest.mark.parametrize(
    "error", [ValueError("secret"), OSError(5, "secret"), RuntimeError(), RecursionError(), KeyError("x")]
)
async def test_a_port_that_raises_is_a_denial(port, error):
    ports = Ports(**{port: error})
    verdict = await judge(ports)
    assert isinstance(verdict, Reply)
    assert verdict.reason == RAISED.get(port, "gateway_error")
    assert "secret" not in str(ports.events)
    assert ports.events[0]["effect"] == "deny"


@pytest.mark.parametrize("port", ["check", *AWAITED, "sign"])
async def test_a_store_that_is_down_is_a_denial(port):
    verdict = await judge(Ports(**{port: StoreDown()}))
    assert (verdict.reason, verdict.status) == ("store_down", 503)


@pytest.mark.parametrize("port", AWAITED)
async def test_a_port_that_hangs_is_a_denial_by_the_deadline(port):
    ports = Ports(**{port: hang})
    async with asyncio.timeout(2):
        verdict = await judge(ports)
    assert isinstance(verdict, Reply)
    assert verdict.reason == LATE.get(port, "gateway_error")
    assert ports.events[0]["effect"] == "deny"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("port", AWAITED)
async def test_a_port_that_loses_the_word_of_its_cancellation_is_a_denial_all_the_same(port):
    async def reraise(*_):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise asyncio.CancelledError from None

    async with asyncio.timeout(2):
        assert isinstance(await judge(Ports(**{port: reraise})), Reply)


async def test_a_client_that_goes_away_ends_the_judging():
    task = asyncio.ensure_future(judge(Ports(read=hang), deadline_s=5))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


NONSENSE = [True, 1, "allow", b"", (), {}, object(), Decision, ALLOW, SESSION, DEVICE, IDENTITY, NO_SIGNAL]
RIGHT = {"verify": Device, "read": Identity, "bind": Session, "assess": type(NO_SIGNAL), "decide": Decision}
MAY_BE_NONE = {"verify", "read"}
BAD_ANSWERS = [
    (port, answer)
    for port in AWAITED
    for answer in (None, *NONSENSE)
    if not isinstance(answer, RIGHT[port]) and not (answer is None and port in MAY_BE_NONE)
]


@pytest.mark.parametrize(("port", "answer"), BAD_ANSWERS, ids=lambda value: str(type(value).__name__))
async def test_a_port_that_answers_nonsense_is_a_denial(port, answer):
    route = Route("staff", "a.example", device_required=False)
    verdict = await judge(Ports(**{port: lambda *_: answer}), routes=(route,))
    assert isinstance(verdict, Reply)
    assert verdict.reason == RAISED.get(port, "gateway_error")


@pytest.mark.parametrize("answer", [True, "x", 1, object()])
async def test_a_guard_that_answers_nonsense_is_a_denial(answer):
    assert (await judge(Ports(check=lambda: answer))).reason == "gateway_error"


@pytest.mark.parametrize("token", [None, "", b"a.b.c", "a\r\nb: c", "\u00fc", 5, " a", "x" * 9000])
async def test_an_assertion_that_is_none_is_a_denial(token):
    assert (await judge(Ports(sign=lambda *_: token))).reason == "gateway_error"


@pytest.mark.parametrize(
    "decision", [Decision("allow", ()), Decision("maybe", ("policy_ok",)), Decision("allow", ("policy_ok",), (None,))]
)
async def test_a_decision_that_breaks_its_contract_is_a_denial(decision):
    assert isinstance(await judge(Ports(decide=decision)), Reply)


# ---- the record ----


async def test_a_staff_decision_that_cannot_be_recorded_is_refused():
    ports = Ports(record=OSError(28, "No space left on device"))
    verdict = await judge(ports)
    assert (verdict.reason, verdict.status) == ("record_unavailable", 503)
    assert ports.decisions == [("staff", "deny", "record_unavailable", False)]


@pytest.mark.parametrize("port", ["record", "count"])
async def test_a_record_or_a_count_that_breaks_in_another_way_is_a_bare_denial(port):
    verdict = await judge(Ports(**{port: ValueError("x")}))
    assert isinstance(verdict, Reply)
    assert (verdict.status, verdict.body) == (503, b"")


async def test_a_challenge_that_breaks_is_a_denial_without_one():
    ports = Ports(read=Refusal("token_expired"), challenge=ValueError("x"))
    verdict = await judge(ports)
    assert (verdict.status, verdict.reason) == (500, "gateway_error")
    assert len(ports.events) == 1


async def test_a_bad_challenge_is_left_out():
    verdict = await judge(Ports(read=Refusal("token_expired"), challenge="Bearer\r\nx: y"))
    assert ("www-authenticate", "Bearer") in verdict.headers


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"verify": Refusal("device_revoked")},
        {"read": ValueError()},
        {"decide": Decision("deny", ("role_missing",))},
    ],
    ids=["allow", "device", "raises", "deny"],
)
async def test_the_user_plane_leaves_nothing_in_the_record(wrong):
    ports = Ports(**wrong)
    await judge(ports, host=b"u.example", peer=Peer("10.0.0.9", 1, chain=(b"x",), sni="u.example"))
    assert ports.events == []
    assert ports.decisions[0][3] is True


async def test_what_is_refused_before_its_host_is_known_leaves_no_trace_unless_it_is_staffs():
    ports = Ports()
    for sni in ("u.example", "n.example", None):
        await judge(ports, b"/../", peer=Peer("10.0.0.9", 1, sni=sni))
    assert ports.events == []
    await judge(ports, b"/../", peer=Peer("10.0.0.9", 1, sni="A.example"))
    assert len(ports.events) == 1


async def test_decision_ids_never_repeat():
    ports = Ports()
    ids = {(await judge(ports)).decision_id for _ in range(50)}
    assert len(ids) == 50


async def test_a_refusal_from_outside_names_the_decision():
    reply = pipeline(Ports()).refuse(None, "upstream_timeout", "id-1")
    assert reply.status == 504
    assert ("x-gateway-decision", "id-1") in reply.headers


# ---- once more, while the request is under way ----


async def judged_again(after, **before):
    """What becomes of a request that was forwarded, when the ports then answer otherwise."""
    ports = Ports(**before)
    made = pipeline(ports)
    raw = RawRequest(b"GET", b"", b"/", [(b"host", b"a.example")], "1.1")
    forward = await made.judge(raw, PEER, CAPABILITIES)
    assert isinstance(forward, Forward)
    ports.wrong |= after
    ports.events.clear()
    return await made.reevaluate(forward), ports


async def test_what_did_not_change_goes_on_without_a_record():
    reply, ports = await judged_again({})
    assert (reply, ports.events) == (None, [])


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ({"verify": Refusal("device_revoked")}, "device_revoked"),
        ({"verify": None}, "device_required"),
        ({"read": Refusal("token_expired")}, "token_expired"),
        ({"read": None}, "login_required"),
        ({"bind": Refusal("session_revoked")}, "session_revoked"),
        ({"decide": Decision("deny", ("policy_denied",))}, "policy_denied"),
        ({"decide": Decision("step_up", ("mfa_required",))}, "mfa_required"),
        ({"decide": RuntimeError("a bug")}, "policy_error"),
        ({"bind": StoreDown("away")}, "store_down"),
        ({"check": Refusal("node_quarantined")}, "node_quarantined"),
    ],
)
async def test_what_changed_ends_it_and_is_recorded_as_a_cut(after, reason):
    reply, ports = await judged_again(after)
    assert reply is not None
    assert reply.reason == reason
    [event] = ports.events
    assert (event["cut"], event["reasons"][0]) == (True, reason)


async def test_a_judgement_that_hangs_is_a_refusal_too():
    async def for_ever(*_):
        await asyncio.sleep(60)

    reply, _ = await judged_again({"bind": for_ever})
    assert reply.reason == "gateway_error"


@pytest.mark.parametrize(
    ("sni", "recorded"),
    [
        ("a.example", True),
        ("A.Example.", True),
        ("x.wild.example", True),
        ("user.wild.example", False),
        ("nobody.example", False),
        (None, False),
    ],
)
async def test_a_probe_of_a_staff_host_is_recorded_however_it_is_spelled(sni, recorded):
    ports = Ports()
    routes = (STAFF, Route("wild", "*.wild.example"), Route("mine", "user.wild.example", plane="user"))
    hosts = frozenset({"a.example", "*.wild.example"})
    peer = Peer("10.0.0.9", 4711, sni=sni)
    verdict = await judge(ports, b"/..", peer=peer, routes=routes, staff_hosts=hosts)
    assert verdict.reason == "malformed_request"
    assert bool(ports.events) == recorded


async def test_a_port_that_says_it_was_cancelled_is_a_denial():
    def gone(*_):
        raise asyncio.CancelledError

    verdict = await judge(Ports(bind=gone))
    assert (verdict.status, verdict.reason) == (500, "gateway_error")
