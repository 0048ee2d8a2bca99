"""WebSocket frames are counted, whatever the pieces they come in, and many short fragments become few."""

import pytest

from gateway.edge.mitm.websocket_frames import WebSocketFrames, join_fragments
from tests.support.edge_floods import fragment

LONG = bytes([0x82, 0xFE]) + (300).to_bytes(2) + b"\0\0\0\0" + bytes(300)
HUGE = bytes([0x82, 0x7F]) + (70_000).to_bytes(8) + bytes(70_000)
STREAM = fragment(b"a", opcode=1) + LONG + fragment(b"", final=True, masked=False) + HUGE + fragment(b"z", opcode=9)


@pytest.mark.parametrize("step", [1, 5, 1 << 17])
def test_no_byte_is_lost_or_changed(step):
    frames, buf, found = WebSocketFrames(), bytearray(), b""
    for at in range(0, len(STREAM), step):
        buf += STREAM[at : at + step]
        found += frames.take_turn(buf)
        while frames.is_waiting:
            found += frames.take_turn(buf)
    assert found == STREAM
    assert not buf


def test_a_turn_takes_few_frames():
    frames, buf = WebSocketFrames(), bytearray(fragment(b"") * 100)
    assert len(frames.take_turn(buf)) == 32 * len(fragment(b""))
    assert frames.is_waiting


def test_a_header_waits_until_it_is_whole():
    frames, buf = WebSocketFrames(), bytearray(LONG[:7])
    assert frames.take_turn(buf) == b""
    assert not frames.is_waiting
    buf += LONG[7:]
    assert frames.take_turn(buf) == LONG


def test_few_fragments_stay_as_they_are_and_many_short_ones_are_joined():
    few = [b"ab", b"", b"c"]
    join_fragments(few)
    assert few == [b"ab", b"", b"c"]
    many = [b"x"] * 10_000 + [b"", b"last"]
    join_fragments(many)
    assert len(many) <= 4
    assert b"".join(many) == b"x" * 10_000 + b"last"
    assert many[-1] == b"last"
