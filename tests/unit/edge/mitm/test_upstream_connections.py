"""A connection to an upstream before and after somebody owns it."""

from __future__ import annotations

import pytest

from gateway.edge.mitm.upstream_connections import UpstreamConnection


class Transport:
    def __init__(self):
        self.did = []

    def set_write_buffer_limits(self, **_):
        pass

    def is_closing(self):
        return "abort" in self.did

    def pause_reading(self):
        self.did.append("pause")

    def abort(self):
        self.did.append("abort")


@pytest.fixture
def leg():
    made = UpstreamConnection(None, ("127.0.0.1", 1))
    made.connection_made(Transport())
    return made


def test_what_an_upstream_says_first_waits_for_its_owner(leg):
    leg.data_received(b"settings")
    assert leg.early == b"settings"
    assert leg.transport.did == ["pause"]
    assert leg.usable


def test_what_a_pooled_connection_says_unasked_ends_it(leg):
    leg.early = None
    leg.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    assert leg.transport.did == ["abort"]
    assert not leg.usable


def test_a_connection_that_ends_before_it_is_owned_is_not_usable(leg):
    leg.eof_received()
    assert not leg.usable
    leg.connection_lost(None)
