"""Fixtures of the edge's tests: one world for the run, upstreams and edges for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.edge_clients import Http1, Http2
from tests.support.edge_upstreams import Http1Upstream, Http2Upstream
from tests.support.edge_world import Certificates, Running, World


@pytest.fixture(scope="session")
def whole_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("edge")
    world = World(folder, Certificates.make(folder))
    yield world
    world.close()


@pytest.fixture
def world(whole_world: World) -> Iterator[World]:
    yield whole_world
    crashes = whole_world.stop_edges()
    assert crashes == [], "\n".join(crashes)


@pytest.fixture
def serve(world: World) -> Iterator[Callable[..., Any]]:
    """Starts upstreams on the world's loop; they end with the test."""
    started: list[Any] = []

    def start(upstream: Any) -> Any:
        world.run(upstream.start())
        started.append(upstream)
        return upstream

    yield start
    for upstream in started:
        world.run(upstream.stop())


@pytest.fixture
def upstream(serve: Callable[..., Any]) -> Http1Upstream:
    made: Http1Upstream = serve(Http1Upstream())
    return made


@pytest.fixture
def upstream2(serve: Callable[..., Any]) -> Http2Upstream:
    made: Http2Upstream = serve(Http2Upstream())
    return made


@pytest.fixture
def edge(world: World, upstream: Http1Upstream) -> Running:
    """An edge in front of the recording HTTP/1.1 upstream."""
    return world.edge(upstream.url)


@pytest.fixture
def connect(world: World) -> Iterator[Callable[..., Http1]]:
    """Opens HTTP/1.1 clients; they end with the test."""
    opened: list[Http1] = []

    def open_client(running: Running, **how: Any) -> Http1:
        client = Http1(running.port, world.certificates, **how)
        opened.append(client)
        return client

    yield open_client
    for client in opened:
        client.close()


@pytest.fixture
def connect2(world: World) -> Iterator[Callable[..., Http2]]:
    """Opens HTTP/2 clients; they end with the test."""
    opened: list[Http2] = []

    def open_client(running: Running, **how: Any) -> Http2:
        client = Http2(running.port, world.certificates, **how)
        opened.append(client)
        return client

    yield open_client
    for client in opened:
        client.close()
