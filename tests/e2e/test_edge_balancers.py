"""Balancers: behind trusted proxies limits count clients, and the PROXY protocol says who they are."""

from __future__ import annotations

import contextlib

import pytest

from tests.support.edge_clients import Http1
from tests.support.edge_upstreams import Http1Upstream
from tests.support.edge_world import World

BALANCER = "127.0.0.1/32"
V1 = b"PROXY TCP4 192.0.2.%d 127.0.0.1 5000 443\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x13\x88\x01\xbb"
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


@pytest.fixture
def behind(world: World, serve):
    """An edge behind a balancer at 127.0.0.1 that speaks the PROXY protocol."""
    world.proxy_protocol = True
    upstream = serve(Http1Upstream())
    yield lambda **more: world.edge(upstream.url, trusted=[BALANCER], **more)
    world.proxy_protocol = False


def seen_ip(running) -> str:
    return str(running.ports.events[-1]["client_ip"])


@pytest.mark.parametrize(("header", "client"), [(V1 % 7, "192.0.2.7"), (V2, "192.0.2.7"), (LOCAL, "127.0.0.1")])
def test_the_client_is_whom_the_balancer_speaks_for(world, behind, header, client):
    running = behind()
    with contextlib.closing(Http1(running.port, world.certificates, before_tls=header)) as connection:
        assert connection.ask().status == 200
    assert seen_ip(running) == client


def test_x_forwarded_for_of_that_client_is_not_believed(world, behind):
    running = behind()
    with contextlib.closing(Http1(running.port, world.certificates, before_tls=V2)) as connection:
        assert connection.ask(headers=[("x-forwarded-for", "203.0.113.1")]).status == 200
    assert seen_ip(running) == "192.0.2.7"


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 nonsense\r\n", V2[:12] + b"\x31" + V2[13:]])
def test_a_balancer_without_a_good_header_is_cut(world, behind, header):
    running = behind()
    with pytest.raises((OSError, EOFError)):
        Http1(running.port, world.certificates, before_tls=header)
    assert running.counts.handshakes == ["failed"]


def test_a_stranger_cannot_say_who_he_is(world, behind):
    running = behind()
    with pytest.raises((OSError, EOFError)):
        Http1(running.port, world.certificates, before_tls=V2, source="127.0.0.9")
    with contextlib.closing(Http1(running.port, world.certificates, source="127.0.0.9")) as connection:
        assert connection.ask().status == 200
    assert seen_ip(running) == "127.0.0.9"


def test_each_client_behind_the_balancer_has_its_own_limit(world, behind):
    running = behind(limits={"connections_per_client": 2})
    with contextlib.ExitStack() as stack:
        for number in (1, 1, 2, 2, 3):
            connection = Http1(running.port, world.certificates, before_tls=V1 % number)
            stack.callback(connection.close)
            assert connection.ask().status == 200
        with pytest.raises((OSError, EOFError)):
            Http1(running.port, world.certificates, before_tls=V1 % 1)
        assert running.counts.open == 5
    running.until(lambda: running.counts.open == 0)


def test_a_trusted_proxy_is_no_client_and_its_connections_are_not_counted_as_one(world, serve):
    running = world.edge(serve(Http1Upstream()).url, trusted=[BALANCER], limits={"connections_per_client": 2})
    with contextlib.ExitStack() as stack:
        for number in range(5):
            connection = Http1(running.port, world.certificates)
            stack.callback(connection.close)
            assert connection.ask(headers=[("x-forwarded-for", f"192.0.2.{number}:99")]).status == 200
            assert seen_ip(running) == f"192.0.2.{number}"


def test_a_refused_connection_leaves_one_line_a_minute_for_each_client(world, serve, capsys):
    running = world.edge(serve(Http1Upstream()).url, limits={"connections_per_client": 1})
    with contextlib.closing(Http1(running.port, world.certificates)) as connection:
        assert connection.ask().status == 200
        for _ in range(4):
            with pytest.raises((OSError, EOFError)):
                Http1(running.port, world.certificates)
    running.until(lambda: running.counts.handshakes.count("too_many") == 4)
    lines = [line for line in capsys.readouterr().out.splitlines() if "connection_refused" in line]
    assert len(lines) == 1
    assert "127.0.0.1" in lines[0]
    assert "too_many" in lines[0]
