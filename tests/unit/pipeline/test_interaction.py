"""Interaction: own answers, people who are sent away, and held requests that return, the same for every edge."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.decision import Decision
from gateway.core.navigation import Redirect, Resume
from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import Refusal
from gateway.core.request import RawRequest
from gateway.pipeline.headers import Forward
from gateway.pipeline.interaction import answer
from gateway.pipeline.stages import STAGES
from gateway.pipeline.verdicts import InteractionRequired, LocalRequest
from gateway.replies.replies import Reply
from tests.unit.pipeline.test_pipeline import CAPABILITIES, PEER, Ports, pipeline

LOGIN = Decision("login", ("login_required",))
OWN = b"/.gateway/me"
PAGE = ((b"accept", b"text/html"), (b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document"))


def raw(target=b"/", headers=PAGE):
    return RawRequest(b"GET", b"", target, [(b"host", b"a.example"), *headers], "1.1")


class Endpoints:
    """Answers every request of the gateway's own with what a test gives."""

    def __init__(self, outcome):
        self.outcome = outcome

    async def answer(self, facts, device, body):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return await self.outcome if asyncio.iscoroutine(self.outcome) else self.outcome


class Starter:
    """Sends everybody to one place."""

    def __init__(self, outcome):
        self.outcome, self.bodies = outcome, []

    async def start(self, facts, route, body, *, fresh=False, step_up=None, reasons=()):
        self.bodies.append(body)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


async def answered(judging, target, outcome=None, body=b""):
    verdict = await judging.judge(raw(target), PEER, CAPABILITIES)
    assert isinstance(verdict, LocalRequest | InteractionRequired)
    return await answer(judging, Endpoints(outcome), verdict, body, PEER, CAPABILITIES)


def test_the_stages_stand_in_the_order_of_the_data_path():
    names = [stage.__name__ for stage in STAGES]
    assert names == ["guard", "route", "verify_device", "identify", "bind", "assess", "decide", "settle"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(StoreDown("away"), "store_down"), (OSError(), "record_unavailable"), (RuntimeError("a bug"), "gateway_error")],
)
async def test_an_own_answer_that_fails_is_a_denial(failure, reason):
    result = await answered(pipeline(Ports()), OWN, failure)
    assert (result.verdict.reason, result.is_resumed) == (reason, False)


async def test_an_own_answer_that_never_comes_is_a_denial_at_the_deadline():
    result = await answered(pipeline(Ports()), OWN, asyncio.sleep(60))
    assert result.verdict.reason == "gateway_error"


async def test_a_held_request_that_returns_is_judged_anew_and_carries_what_the_return_adds():
    resume = Resume(raw(b"/held"), b"held body", ("a=b",), (("x-y", "z"),))
    result = await answered(pipeline(Ports()), OWN, resume, b"the body of the visit")
    assert isinstance(result.verdict, Forward)
    assert (result.verdict.facts.path, result.body, result.is_resumed) == ("/held", b"held body", True)
    assert result.verdict.added == (("set-cookie", "a=b"), ("x-y", "z"))


async def test_a_held_request_that_is_refused_now_gets_the_added_fields_too():
    resume = Resume(raw(b"/held"), b"", ("a=b",))
    result = await answered(pipeline(Ports(decide=Decision("deny", ("policy_denied",)))), OWN, resume)
    assert isinstance(result.verdict, Reply)
    assert result.verdict.reason == "policy_denied"
    assert ("set-cookie", "a=b") in result.verdict.headers


async def test_a_held_request_cannot_return_as_one_of_the_gateways_own():
    result = await answered(pipeline(Ports()), OWN, Resume(raw(OWN), b"", ()))
    assert result.verdict.reason == "gateway_error"


async def test_a_person_is_sent_to_sign_in_and_the_body_waits():
    starter = Starter(Redirect("/.gateway/login", ("c=d",)))
    result = await answered(pipeline(Ports(decide=LOGIN), starter=starter), b"/", body=b"form")
    assert (result.verdict.status, starter.bodies) == (302, [b"form"])
    assert ("location", "/.gateway/login") in result.verdict.headers


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Refusal("login_required"), "login_required"),
        (Refusal("too_many_requests"), "too_many_requests"),
        (StoreDown("away"), "store_down"),
        (RuntimeError("a bug"), "gateway_error"),
    ],
)
async def test_who_cannot_be_sent_away_gets_a_denial(outcome, reason):
    result = await answered(pipeline(Ports(decide=LOGIN), starter=Starter(outcome)), b"/")
    assert result.verdict.reason == reason
