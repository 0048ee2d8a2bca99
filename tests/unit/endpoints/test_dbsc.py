"""The own paths of bound sessions, asked as a browser asks them; and the offer on the answer that opens a session."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.cookies import SESSION, cookie
from gateway.core.ports.stores import StoreDown
from gateway.endpoints.dbsc import DbscEndpoints, with_registration_offer
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.router import Router
from gateway.identity.sessions.dbsc import Dbsc
from gateway.replies.replies import Reply, redirect
from tests.support.login_world import WIKI, Browser, World, origin, random
from tests.support.proof_world import Holder

HOLDER = Holder()


class Site:
    def __init__(self, world: World, attempts: RateLimiter | None = None) -> None:
        self.world = world
        self.keys = Dbsc(
            world.documents, world.cookies, world.logins, origin=origin, clock=world.clock, random=random, life_s=600
        )
        limited = {} if attempts is None else {"limiter": attempts}
        self.router = Router(DbscEndpoints(dbsc=self.keys, **limited).endpoints())

    async def post(self, path: str, method: str = "POST", **headers: str) -> Reply:
        facts = Browser().facts(f"https://{WIKI}/.gateway/dbsc/{path}", method, **headers)
        reply = await self.router.answer(facts, None, b"")
        assert isinstance(reply, Reply)
        return reply

    async def arrive(self) -> str:
        """Sign in: the challenge of the offer."""
        outcome = await self.world.sign_in(Browser())
        reply = await with_registration_offer(self.keys, redirect("/page", "login_ok", "-", outcome.cookies))
        (offer,) = values(reply, "secure-session-registration")
        return offer.rpartition('challenge="')[2].rstrip('"')

    async def register(self) -> Reply:
        proof = HOLDER.sign({"alg": "ES256", "typ": "dbsc+jwt", "jwk": HOLDER.jwk}, {"jti": await self.arrive()})
        return await self.post("register", secure_session_response=proof)


def values(reply: Reply, name: str) -> list[str]:
    return [value for key, value in reply.headers if key == name]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


async def test_the_offer_stands_beside_the_cookie_and_on_no_other_answer(site: Site) -> None:
    outcome = await site.world.sign_in(Browser())
    reply = redirect("/page", "login_ok", "-", outcome.cookies)
    offered = await with_registration_offer(site.keys, reply)
    assert offered.headers[: len(reply.headers)] == reply.headers
    assert [name for name, _ in offered.headers[len(reply.headers) :]] == ["secure-session-registration"]
    for other in (redirect("/", "local", "-"), redirect("/", "local", "-", (cookie(SESSION, "", 0),))):
        assert await with_registration_offer(site.keys, other) is other


async def test_registration_and_refresh_as_the_browser_does_them(site: Site) -> None:
    reply = await site.register()
    assert (reply.status, values(reply, "content-type")) == (200, ["application/json"])
    assert values(reply, "cache-control") == ["no-store"]
    (made,) = values(reply, "set-cookie")
    assert made.startswith("__Host-gateway-bound=")
    assert made.endswith("; Max-Age=600")
    name = json.loads(reply.body)["session_identifier"]

    reply = await site.post("refresh", sec_secure_session_id=name)
    assert reply.status == 403
    assert values(reply, "www-authenticate") == values(reply, "set-cookie") == []
    (challenge,) = values(reply, "secure-session-challenge")
    assert challenge.endswith(f'";id="{name}"')

    proof = HOLDER.sign({"alg": "ES256", "typ": "dbsc+jwt"}, {"jti": challenge[1:44]})
    reply = await site.post("refresh", sec_secure_session_id=name, secure_session_response=proof)
    assert reply.status == 200
    assert json.loads(reply.body)["session_identifier"] == name
    assert len(values(reply, "set-cookie")) == 1

    again = await site.post("refresh", sec_secure_session_id=name, secure_session_response=proof)
    assert (again.status, len(values(again, "secure-session-challenge"))) == (403, 1)


async def test_a_session_that_is_over_is_told_so_with_a_body(site: Site) -> None:
    reply = await site.post("refresh", sec_secure_session_id="0" * 64)
    assert (reply.status, json.loads(reply.body)) == (200, {"continue": False})
    assert values(reply, "set-cookie") == []


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("register", {}),
        ("register", {"secure_session_response": "x"}),
        ("register", {"secure_session_response": HOLDER.sign({"alg": "none", "typ": "dbsc+jwt"}, {})}),
        ("refresh", {}),
    ],
)
async def test_no_answer_is_a_401_a_204_or_empty(site: Site, path: str, headers: dict[str, str]) -> None:
    reply = await site.post(path, **headers)
    assert (reply.status, reply.reason) == (400, "key_proof_invalid")
    assert reply.body
    assert values(reply, "www-authenticate") == []


async def test_these_paths_are_posted_to(site: Site) -> None:
    for path in ("register", "refresh"):
        assert (await site.post(path, "GET")).status == 405


async def test_too_many_attempts_are_a_matter_of_time_and_end_no_session(world: World) -> None:
    site = Site(world, RateLimiter(burst=1, per_s=0.001))
    await site.post("refresh", sec_secure_session_id="x")
    reply = await site.post("refresh", sec_secure_session_id="x")
    assert (reply.status, reply.reason) == (503, "too_many_attempts")
    assert values(reply, "retry-after")


async def test_a_store_that_is_down_comes_out_for_the_pipeline_to_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: Any) -> None:
        raise StoreDown

    monkeypatch.setattr(site.world.documents, "get", down)
    with pytest.raises(StoreDown):
        await site.post("refresh", sec_secure_session_id="x")
