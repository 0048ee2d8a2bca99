"""WebSocket frames (RFC 6455 section 5.2), counted so that one turn handles few, and fragments that are joined.

Fragments mean nothing by themselves and an intermediary may join them (section 5.4): a message of a million fragments
must not cost a million steps each time it grows, nor when it goes on.
"""

from __future__ import annotations

from gateway.edge.mitm.framing import take

_FRAMES_A_TURN = 32
_BYTES_A_TURN = 1 << 16
_MASKED, _LENGTH = 0x80, 0x7F
_LENGTH_2, _LENGTH_8 = 126, 127
_FRAGMENTS = 256
_JOINED_BYTES = 1 << 12


class WebSocketFrames:
    """Cuts one side's bytes after some frames. `is_waiting`: the last turn ended before the input did."""

    def __init__(self) -> None:
        self._payload_left = 0
        self.is_waiting = False

    def take_turn(self, buf: bytearray) -> bytes:
        """The bytes of one turn; a frame's header comes as a whole, its payload as it is there."""
        at = frames = 0
        while at < len(buf) and at < _BYTES_A_TURN and frames < _FRAMES_A_TURN:
            if not self._payload_left:
                size = _header(buf, at)
                if size is None:
                    self.is_waiting = False
                    return take(buf, at)
                header, self._payload_left = size
                at += header
                frames += 1
            step = min(self._payload_left, len(buf) - at, _BYTES_A_TURN)
            at += step
            self._payload_left -= step
        data = take(buf, at)
        self.is_waiting = bool(buf)
        return data


def _header(buf: bytearray, at: int) -> tuple[int, int] | None:
    """The sizes of the header and of the payload of the frame that begins at `at`; None until the header is whole."""
    if len(buf) < at + 2:
        return None
    length, extended = buf[at + 1] & _LENGTH, 0
    if length >= _LENGTH_2:
        extended = 2 if length == _LENGTH_2 else 8
        if len(buf) < at + 2 + extended:
            return None
        length = int.from_bytes(buf[at + 2 : at + 2 + extended])
    header = 2 + extended + (4 if buf[at + 1] & _MASKED else 0)
    return (header, length) if len(buf) >= at + header else None


def join_fragments(fragments: list[bytes]) -> None:
    """Join short fragments of an unfinished message in place once there are many; the last one still grows."""
    if len(fragments) <= _FRAGMENTS:
        return
    joined: list[bytes] = []
    pieces: list[bytes] = []
    size = 0
    for piece in fragments[:-1]:
        pieces.append(piece)
        size += len(piece)
        if size >= _JOINED_BYTES:
            joined.append(b"".join(pieces))
            pieces, size = [], 0
    if pieces:
        joined.append(b"".join(pieces))
    fragments[:] = [*joined, fragments[-1]]
