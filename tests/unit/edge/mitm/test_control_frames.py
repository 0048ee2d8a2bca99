"""The reader of HTTP/2 frames: what it cuts, what it charges, what it refuses at the header."""

import pytest

from gateway.edge.mitm.control_frames import (
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    TURN_SHARES,
    FrameReader,
    FrameRefused,
)
from tests.support.edge_floods import CONTINUATION, DATA, HEADERS, PING, RST_STREAM, frame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def reader(*, block_limit=4096):
    return FrameReader(is_server=False, block_limit=block_limit)


def refused(frames, data):
    frames.add(data)
    with pytest.raises(FrameRefused) as error:
        while frames.has_frame:
            frames.read_turn()
    return error.value.code


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_frames_are_the_same_however_they_arrive(step):
    frames, found = FrameReader(is_server=True, block_limit=4096), []
    data = PREFACE + frame(4) + frame(DATA, b"abc", stream=1)
    for at in range(0, len(data), step):
        frames.add(data[at : at + step])
        found += frames.read_turn()
    assert found == [PREFACE + frame(4), frame(DATA, b"abc", stream=1)]
    assert frames.incomplete_since is None


def test_a_turn_takes_few_frames_and_fewer_requests():
    frames = reader()
    frames.add(frame(PING, bytes(8)) * 100)
    assert len(frames.read_turn()) == TURN_SHARES
    assert frames.has_frame
    frames = reader()
    frames.add(frame(HEADERS, b"\x82", flags=4, stream=1) * 100)
    assert len(frames.read_turn()) == TURN_SHARES // 8


def test_what_is_no_preface_is_refused_before_it_is_whole():
    frames = FrameReader(is_server=True, block_limit=4096)
    frames.add(b"GET / HTTP/1.1\r\n")
    with pytest.raises(FrameRefused) as error:
        frames.read_turn()
    assert error.value.code == PROTOCOL_ERROR


def test_a_frame_over_16_kib_is_refused_at_its_header():
    frames = reader()
    frames.add(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01")
    with pytest.raises(FrameRefused) as error:
        frames.read_turn()
    assert error.value.code == FRAME_SIZE_ERROR


def test_a_header_block_over_its_limit_is_refused_whether_it_ends_or_not():
    begun = frame(HEADERS, bytes(3000), stream=1)
    assert refused(reader(), begun + frame(CONTINUATION, bytes(3000), stream=1)) == ENHANCE_YOUR_CALM
    assert refused(reader(), begun + frame(CONTINUATION, stream=1) * 100) == ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "piece",
    [frame(kind, payload, flags=flags) for kind, payload, flags in
     [(2, bytes(5), 0), (RST_STREAM, bytes(4), 0), (4, b"", 0), (4, b"", 1), (PING, bytes(8), 0), (8, bytes(4), 0),
      (0xFA, b"", 0), (DATA, b"", 0), (DATA, b"\0", 8), (DATA, b"\2\0\0", 8)]],
    ids=["priority", "reset", "settings", "ack", "ping", "window", "unknown", "empty", "padded", "padding"],
)  # fmt: skip
def test_frames_without_content_are_paid_from_an_allowance(piece):
    assert refused(reader(), piece * 1001) == ENHANCE_YOUR_CALM


def test_content_and_time_refill_the_allowance():
    frames = reader()
    for _ in range(50):
        frames.add(frame(HEADERS, b"\x82", flags=5, stream=1) + frame(8, bytes(4)) * 10)
        while frames.has_frame:
            frames.read_turn()
    for _ in range(100):
        frames.earn_data(1 << 18)
        frames.add(frame(8, bytes(4)) * 60)
        while frames.has_frame:
            frames.read_turn()
    for _ in range(100):
        frames.earn_second(0.5)
        frames.add(frame(PING, bytes(8)) * 50)
        while frames.has_frame:
            frames.read_turn()


def test_data_with_content_and_the_end_of_a_stream_cost_nothing():
    frames = reader()
    frames.add(frame(DATA, b"x", stream=1) * 3000 + frame(DATA, flags=1, stream=1) * 3000)
    while frames.has_frame:
        frames.read_turn()


def test_an_unfinished_block_and_an_unfinished_frame_have_a_beginning():
    frames = reader()
    frames.add(frame(HEADERS, b"\x82", stream=1))
    frames.read_turn()
    since = frames.incomplete_since
    assert since is not None
    assert frames.is_in_block
    frames.add(frame(CONTINUATION, stream=1))
    frames.read_turn()
    assert frames.incomplete_since == since
    frames.add(frame(CONTINUATION, stream=1, flags=4))
    frames.read_turn()
    assert frames.incomplete_since is None
    assert not frames.is_in_block
    frames.add(frame(DATA, b"abc", stream=1)[:-1])
    frames.read_turn()
    assert frames.incomplete_since is not None
    assert not frames.is_in_block
