"""Connection-based authentication: what an upstream remembers of a connection is never the next person's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.subject import Identity
from tests.support.edge_upstreams import H2Talk, Http1Upstream, Http2Upstream, Seen, Talk
from tests.support.edge_world import Ports

ANNA, BERT = ("x-person", "anna"), ("x-person", "bert")
NTLM = ("authorization", "NTLM TlRMTVNTUAADAAAA")


class People(Ports):
    """Whoever a header names; nobody without it."""

    async def read(self, facts: Any, route: Any) -> Identity | None:
        name = facts.header("x-person")
        return Identity("https://id", name, "jwt", "s", 2e9) if name else None


class Remembering(Http1Upstream):
    """Takes every request of a connection for those of whoever logged in on it first."""

    def __init__(self, header: str = "authorization", challenge: str = "") -> None:
        super().__init__(self.answer)
        self.people: dict[int, str] = {}
        self.header, self.challenge = header, challenge

    async def answer(self, talk: Talk, seen: Seen) -> None:
        name = seen.get("x-person") or "nobody"
        if seen.get(self.header) or (self.challenge and name != "nobody"):
            self.people.setdefault(talk.number, name)
        person = self.people.get(talk.number, "")
        await talk.ok(person.encode(), self.challenge if person else "")


@pytest.fixture(params=["connect", "connect2"])
def ask_alone(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    """One request on a client connection of its own, which is closed again."""
    connect = request.getfixturevalue(request.param)

    def ask(running: Any, *headers: tuple[str, str]) -> bytes:
        client = connect(running)
        answer = client.ask(headers=list(headers))
        client.close()
        running.until(lambda: running.counts.open == 0)
        assert answer.status == 200
        body: bytes = answer.body
        return body

    return ask


@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate", "Kerberos", "X-Unheard-Of"])
def test_the_next_client_is_not_the_person_of_the_last(world, serve, ask_alone, scheme):
    upstream = serve(Remembering())
    running = world.edge(upstream.url, ports=People(), route={"keep_bearer": True})
    assert ask_alone(running, ANNA, ("authorization", f"{scheme} abc")) == b"anna"
    assert ask_alone(running, BERT) == b""
    assert ask_alone(running) == b""


@pytest.mark.parametrize(
    "challenge",
    ["WWW-Authenticate: Negotiate oYG2", "Persistent-Auth: true", 'WWW-Authenticate: Basic realm="a", NTLM'],
)
def test_an_answer_can_tie_the_connection_too(world, serve, ask_alone, challenge):
    running = world.edge(serve(Remembering(challenge=f"{challenge}\r\n")).url, ports=People())
    assert ask_alone(running, ANNA) == b"anna"
    assert ask_alone(running) == b""


def test_a_stateless_scheme_leaves_the_connection_in_the_pool(world, serve, ask_alone):
    upstream = serve(Remembering())
    running = world.edge(upstream.url, ports=People(), route={"keep_bearer": True})
    for _ in range(3):
        ask_alone(running, ANNA, ("authorization", "Basic abc"))
    assert upstream.connections == 1


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_two_people_on_one_client_connection_stay_apart(world, serve, request, kind):
    upstream = serve(Remembering())
    running = world.edge(upstream.url, ports=People(), route={"keep_bearer": True})
    client = request.getfixturevalue(kind)(running)
    assert client.ask(headers=[ANNA, NTLM]).body == b"anna"
    assert client.ask(headers=[BERT]).body == b""
    assert client.ask(headers=[]).body == b""
    # The handshake of one person goes on, whatever others do in between.
    assert client.ask(headers=[ANNA]).body == b"anna"
    assert client.ask(headers=[BERT, NTLM]).body == b"bert"
    assert client.ask(headers=[ANNA]).body == b"anna"


def test_a_service_that_remembers_by_other_means_says_so(world, serve, ask_alone):
    upstream = serve(Remembering("x-login"))
    running = world.edge(upstream.url, ports=People(), upstream={"connections": "person"})
    assert ask_alone(running, ANNA, ("x-login", "1")) == b"anna"
    assert ask_alone(running, BERT) == b""


@pytest.mark.parametrize("kind", ["connect", "connect2"])
def test_an_http2_upstream_connection_serves_one_person(world, serve, request, kind):
    async def answer(talk: H2Talk, stream: int, seen: Seen) -> None:
        await talk.ended(stream)
        if seen.get("authorization"):
            people.setdefault(id(talk), seen.get("x-person") or "")
        await talk.head(stream)
        await talk.data(stream, people.get(id(talk), "").encode(), end=True)

    people: dict[int, str] = {}
    upstream = serve(Http2Upstream(answer))
    running = world.edge(upstream.url, ports=People(), upstream={"protocol": "h2"}, route={"keep_bearer": True})
    client = request.getfixturevalue(kind)(running)
    assert client.ask(headers=[ANNA, NTLM]).body == b"anna"
    assert client.ask(headers=[BERT]).body == b""
    assert client.ask(headers=[]).body == b""
    assert client.ask(headers=[ANNA]).body == b"anna"
    client.close()
    running.until(lambda: running.counts.open == 0)
    assert request.getfixturevalue(kind)(running).ask(headers=[BERT]).body == b""


def test_streams_at_once_of_two_people_use_two_http2_upstream_connections(world, serve, connect2):
    async def answer(talk: H2Talk, stream: int, seen: Seen) -> None:
        people.setdefault(id(talk), set()).add(seen.get("x-person"))
        await talk.ended(stream)
        await talk.head(stream, end=True)

    people: dict[int, set[str | None]] = {}
    upstream = serve(Http2Upstream(answer))
    client = connect2(world.edge(upstream.url, ports=People(), upstream={"protocol": "h2"}))
    streams = [client.start("/", headers=[person]) for person in (ANNA, BERT, ANNA, BERT)]
    assert [client.answer(stream).status for stream in streams] == [200] * 4
    assert upstream.connections == 2
    assert sorted(people.values(), key=str) == [{"anna"}, {"bert"}]
