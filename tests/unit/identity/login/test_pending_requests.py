"""Requests that wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.canonical import admit
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.identity.login.pending_requests import BODY_LIMIT_BYTES, LIFE_S, PendingRequest, PendingRequests
from tests.support.issuer_world import Clock
from tests.support.login_world import SHOP, WIKI, WIKI_ROUTE, Browser, MemoryDocuments, origin, random, reason_of

OWN = {"origin": origin(WIKI), "sec_fetch_site": "same-origin"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(clock: Clock) -> PendingRequests:
    return PendingRequests(MemoryDocuments(clock), clock, random, origin)


async def wait(
    held: PendingRequests, url: str = f"https://{WIKI}/a?b=1", body: bytes | None = b"", **sent: str
) -> PendingRequest | Refusal:
    return await held.hold(Browser().facts(url, **sent), WIKI_ROUTE, body, random())


async def test_a_page_waits_by_its_target_alone(held: PendingRequests) -> None:
    made = await wait(held, authorization="Basic x", cookie="a=1")
    assert isinstance(made, PendingRequest)
    assert (made.host, made.method, made.target, made.headers, made.body) == (WIKI, "GET", "/a?b=1", (), b"")
    assert made.is_safe
    assert await held.look(made.id) == made


async def test_a_form_of_the_hosts_own_page_waits_whole_without_its_credentials(held: PendingRequests) -> None:
    sent = {"method": "POST", "content_type": "text/plain", "authorization": "Basic x", "cookie": "a=1", "dpop": "x"}
    made = await wait(held, body=b"x" * BODY_LIMIT_BYTES, **sent, **OWN)
    assert isinstance(made, PendingRequest)
    names = {name for name, _ in made.headers}
    assert names.isdisjoint({"authorization", "cookie", "dpop"})
    assert "content-type" in names
    found = await held.take(made.id)
    assert found == made
    facts = admit(made.raw("b=2"), Peer("192.0.2.7", 1, sni=WIKI))
    assert isinstance(facts, RequestFacts)
    assert (facts.method, facts.target, facts.header("cookie")) == ("POST", "/a?b=1", "b=2")
    assert facts.content_length == BODY_LIMIT_BYTES


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null", "sec_fetch_site": "same-site"},
        {"origin": "null", "sec_fetch_site": "cross-site"},
        {"origin": "null"},
        {"origin": origin(SHOP), "sec_fetch_site": "same-site"},
        {"origin": f"https://{WIKI}"},
        {"origin": origin(WIKI), "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
    ],
)
async def test_a_form_that_another_site_sent_waits_as_a_mere_visit(held: PendingRequests, sent: dict[str, str]) -> None:
    """Or a sign-in would give it the session that SameSite keeps from it."""
    made = await wait(held, method="POST", body=b"transfer=1", **sent)
    assert isinstance(made, PendingRequest)
    assert (made.method, made.target, made.body, made.headers) == ("GET", "/a?b=1", b"", ())


@pytest.mark.parametrize("body", [None, b"x" * (BODY_LIMIT_BYTES + 1)])
async def test_a_body_that_is_not_there_or_too_large_cannot_wait(held: PendingRequests, body: bytes | None) -> None:
    assert reason_of(await wait(held, body=body, method="PUT", **OWN)) == "login_required"


async def test_a_request_is_taken_once_and_in_time(held: PendingRequests, clock: Clock) -> None:
    made = await wait(held)
    assert isinstance(made, PendingRequest)
    assert await held.take(made.id) == made
    assert await held.take(made.id) is None
    assert await held.look(made.id) is None
    late = await wait(held)
    assert isinstance(late, PendingRequest)
    clock.pass_(LIFE_S)
    assert await held.look(late.id) is None


@pytest.mark.parametrize("name", ["", "x", "../../etc", "a" * 44, "\u00e4" * 43])
async def test_an_id_of_the_wrong_form_finds_nothing(held: PendingRequests, name: str) -> None:
    assert await held.look(name) is None
    assert await held.take(name) is None


async def test_a_client_cannot_fill_the_store(clock: Clock) -> None:
    held = PendingRequests(MemoryDocuments(clock), clock, random, origin, budget_bytes=700)
    assert isinstance(await wait(held), PendingRequest)
    assert isinstance(await wait(held), PendingRequest)
    assert reason_of(await wait(held)) == "too_many_attempts"


async def test_what_others_let_wait_stops_nobody_from_signing_in(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.identity.login.pending_requests._BUDGET_ALL_BYTES", 200_000)
    held = PendingRequests(MemoryDocuments(clock), clock, random, origin)
    big = b"x" * 60_000

    async def wait_from(address: str, body: bytes) -> PendingRequest | Refusal:
        facts = replace(Browser().facts(f"https://{WIKI}/", "POST", **OWN), client_ip=address)
        return await held.hold(facts, WIKI_ROUTE, body, random())

    outcomes = [await wait_from(f"192.0.2.{number % 4}", big) for number in range(12)]
    assert [isinstance(outcome, PendingRequest) for outcome in outcomes][:2] == [True, True]
    assert reason_of(outcomes[-1]) == "too_many_attempts"
    assert isinstance(await wait_from("198.51.100.1", b"x=1"), PendingRequest)


async def test_it_remembers_what_its_service_accepts_and_whether_it_leaves_a_trace(held: PendingRequests) -> None:
    route = Route("shop", SHOP, plane="user", issuers=("https://id",))
    made = await held.hold(Browser().facts(f"https://{SHOP}/"), route, b"", random(), fresh=True)
    assert isinstance(made, PendingRequest)
    found = await held.look(made.id)
    assert found is not None
    assert (found.issuers, found.zero_log, found.fresh) == (("https://id",), True, True)


def test_nothing_of_it_shows() -> None:
    made = PendingRequest("the-id", WIKI, "POST", "/", "the-binding", headers=(("x-key", "the-key"),), body=b"the-body")
    assert not [word for word in ("the-id", "the-binding", "the-key", "the-body") if word in repr(made)]


async def test_a_form_of_a_page_without_a_referrer_is_the_hosts_own(held: PendingRequests) -> None:
    waiting = await wait(held, body=b"note=1", method="POST", origin="null", sec_fetch_site="same-origin")
    assert isinstance(waiting, PendingRequest)
    assert (waiting.method, waiting.body) == ("POST", b"note=1")
