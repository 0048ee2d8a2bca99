"""The HTTP/1.1 codecs of both sides, byte for byte."""

import pytest
from mitmproxy.proxy import events

from tests.support.edge_wire import Wire

HEAD = b"HTTP/1.1\r\nhost: a.example\r\n"
GET = b"GET / " + HEAD + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SENT = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-gateway-decision: id\r\n\r\nok"


def test_a_request_and_its_answer_byte_for_byte():
    wire = Wire()
    wire.say(GET)
    assert wire.to_upstream == [b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"]
    wire.hear(OK)
    assert wire.to_client == SENT
    assert [exchange.status for exchange in wire.over] == [200]


@pytest.mark.parametrize("step", [1, 3, 10])
def test_pieces_make_no_difference(step):
    wire = Wire()
    request = b"POST / " + HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    for at in range(0, len(request), step):
        wire.say(request[at : at + step])
    body = wire.to_upstream[0].partition(b"\r\n\r\n")[2]
    assert body.endswith(b"0\r\n\r\n")
    assert b"".join(body.split(b"\r\n")[1::2]).startswith(b"abc")
    for at in range(0, len(OK), step):
        wire.hear(OK[at : at + step])
    assert wire.to_client == SENT


def test_the_next_request_waits_for_the_answer_before_it():
    wire = Wire()
    wire.say(GET + GET.replace(b"/ ", b"/2 ", 1))
    assert len(wire.exchanges) == 1
    wire.hear(OK)
    assert len(wire.exchanges) == 2
    assert b"GET /2 " in wire.to_upstream[0]
    assert len(wire.servers) == 1


def test_a_flawed_head_is_judged_answered_and_ends_the_connection():
    wire = Wire()
    wire.say(b"GET / HTTP/1.1\nhost: a.example\n\n" + GET)
    assert wire.to_client.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in wire.to_client
    assert wire.commands[-1] == "Linger"
    assert wire.servers == []
    wire.say(GET)
    assert len(wire.exchanges) == 1


def test_a_head_without_end_is_too_large():
    wire = Wire()
    wire.say(b"GET / " + HEAD + b"x: " + b"y" * 5000)
    assert wire.to_client.startswith(b"HTTP/1.1 431 ")


def test_a_bad_first_chunk_is_seen_before_the_upstream_is():
    wire = Wire()
    wire.say(b"POST / " + HEAD + b"transfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n")
    assert wire.to_client.startswith(b"HTTP/1.1 400 ")
    assert wire.servers == []


def test_a_bad_later_chunk_cuts_the_upstream_and_is_told():
    wire = Wire()
    wire.say(b"POST / " + HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    wire.say(b"zz\r\n")
    assert wire.to_client.startswith(b"HTTP/1.1 400 ")
    assert not wire.to_upstream[0].endswith(b"0\r\n\r\n")
    assert not wire.servers[0].connected


def test_a_bad_chunk_after_the_answer_began_cuts_the_client():
    wire = Wire()
    wire.say(b"POST / " + HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    wire.hear(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nab")
    wire.say(b"zz\r\n")
    assert wire.to_client.endswith(b"\r\n\r\nab")
    assert not wire.client.connected
    assert wire.over


def test_a_bad_chunk_that_comes_before_the_verdict_is_refused_too():
    wire = Wire()
    wire.held = True
    wire.say(b"POST / " + HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    wire.say(b"zz\r\n")
    wire.let_go()
    assert wire.to_client.startswith(b"HTTP/1.1 400 ")
    assert wire.servers == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + OK,
        b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok",
    ],
)
def test_answers_in_many_forms_arrive(answer):
    wire = Wire()
    wire.say(GET)
    wire.hear(answer)
    assert b"ok" in wire.to_client
    assert b"103" not in wire.to_client
    assert len(wire.over) == 1
    wire.say(GET)
    assert len(wire.servers) == 1


def test_an_answer_without_a_length_ends_with_its_connection():
    wire = Wire()
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\n\r\nall")
    assert not wire.to_client.endswith(b"0\r\n\r\n")
    wire.end()
    assert wire.to_client.endswith(b"3\r\nall\r\n0\r\n\r\n")


def test_an_answer_without_a_length_that_is_reset_is_cut():
    wire = Wire()
    wire.say(GET)
    wire.hear(b"HTTP/1.1 200 OK\r\n\r\nall")
    wire.end(error="reset")
    assert not wire.to_client.endswith(b"0\r\n\r\n")
    assert not wire.client.connected


def test_a_kept_connection_that_dies_under_a_get_is_replaced_once():
    wire = Wire()
    wire.say(GET)
    wire.hear(OK)
    wire.say(GET)
    wire.end()
    assert len(wire.servers) == 2
    wire.end()
    assert wire.to_client.partition(b"ok")[2].startswith(b"HTTP/1.1 502 ")


def test_a_kept_connection_that_dies_after_it_said_something_is_broken():
    wire = Wire()
    wire.say(GET)
    wire.hear(OK)
    wire.say(GET)
    wire.hear(b"HTTP/1.1 2")
    wire.end()
    assert len(wire.servers) == 1
    assert b"HTTP/1.1 502 " in wire.to_client


def test_bytes_nobody_asked_for_close_the_connection():
    wire = Wire()
    wire.say(GET)
    wire.hear(OK)
    wire.hear(b"HTTP/1.1 200 OK\r\n\r\n")
    assert not wire.servers[0].connected
    assert wire.to_client == SENT


def test_a_flood_behind_a_request_is_cut():
    wire = Wire()
    wire.say(GET)
    wire.say(b"x" * (1 << 20))
    assert "Abort" not in wire.commands
    wire.say(b"x")
    assert wire.commands[-1] == "Abort"


def test_a_client_that_leaves_takes_its_request_with_it():
    wire = Wire()
    wire.say(b"POST / " + HEAD + b"content-length: 5\r\n\r\nab")
    wire.feed(events.ConnectionClosed(wire.client))
    assert not wire.servers[0].connected
    assert wire.over
