"""HTTP/2 frames of one peer, cut out one by one and charged to budgets before a codec sees them (RFC 9113, 10.5).

Frames that carry no content (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, RST_STREAM, CONTINUATION, unknown types, empty
DATA) are paid from an allowance. It grows with time and with the content that both sides exchange, because content is
what honest control frames answer. A frame over 16 KiB is refused at its header, and a header block over its limit.
"""

from __future__ import annotations

import time

from gateway.edge.mitm.framing import take

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER_BYTES = 9
_DATA, _HEADERS, _PUSH_PROMISE, _CONTINUATION = 0x0, 0x1, 0x5, 0x9
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8
FRAME_BYTES = 1 << 14
PROTOCOL_ERROR, FRAME_SIZE_ERROR, ENHANCE_YOUR_CALM = 0x1, 0x6, 0xB
# An allowance of a moment, and what it grows by: a second, a header block, a DATA frame in either direction.
_FIRST_FRAMES, _MOST_FRAMES = 1_000, 10_000
FRAMES_A_SECOND = 100
_FRAMES_FOR_HEADERS, _FRAMES_FOR_DATA = 10, 4
# Shares of one turn: a request costs more than a frame that is only looked at.
TURN_SHARES = 32
_SHARES_OF_HEADERS = 8
# The largest header block there can be needs no more.
_CONTINUATIONS = 32


class FrameRefused(Exception):
    """The peer goes beyond its limits; the connection ends with `code` (RFC 9113 section 7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class FrameReader:
    """Cuts a peer's bytes into frames. `block_limit` bounds an encoded header block, in bytes."""

    def __init__(self, *, is_server: bool, block_limit: int) -> None:
        self.buffer = bytearray()
        self._preface_left = len(_PREFACE) if is_server else 0
        self._block_limit = block_limit
        self._block_bytes: int | None = None
        self._continuations = 0
        self._allowance = _FIRST_FRAMES
        self._incomplete_since: float | None = None

    def add(self, data: bytes) -> None:
        """Take what has arrived."""
        self.buffer += data

    def read_turn(self) -> list[bytes]:
        """Frames for one turn, each whole, the first with the preface before it. Raises FrameRefused."""
        frames: list[bytes] = []
        shares = TURN_SHARES
        while shares > 0 and (size := self._next_size()) is not None:
            kind = self.buffer[self._preface_left + 3]
            self._preface_left = 0
            frames.append(take(self.buffer, size))
            shares -= _SHARES_OF_HEADERS if kind == _HEADERS else 1
        incomplete = self._block_bytes is not None or (shares > 0 and bool(self.buffer))
        if not incomplete:
            self._incomplete_since = None
        elif self._incomplete_since is None or (frames and self._block_bytes is None):
            self._incomplete_since = time.monotonic()
        return frames

    @property
    def has_frame(self) -> bool:
        """Whether a whole frame waits for the next turn; a refused one counts, it ends the connection then."""
        try:
            return self._size() is not None
        except FrameRefused:
            return True

    @property
    def incomplete_since(self) -> float | None:
        """Since when a frame or a header block is unfinished, in `time.monotonic()` seconds."""
        return self._incomplete_since

    @property
    def is_in_block(self) -> bool:
        """Whether a header block is unfinished: nothing else may come on the connection until it ends."""
        return self._block_bytes is not None or (
            len(self.buffer) > 3 and self.buffer[3] in {_HEADERS, _CONTINUATION}  # noqa: PLR2004
        )

    @property
    def block_bytes(self) -> int:
        """How much of an unfinished header block was read."""
        return self._block_bytes or 0

    def earn(self, frames: int) -> None:
        """Let the allowance grow."""
        self._allowance = min(_MOST_FRAMES, self._allowance + frames)

    def earn_second(self, share: float) -> None:
        """Let the allowance grow with time, up to its first size."""
        if self._allowance < _FIRST_FRAMES:
            self._allowance = min(_FIRST_FRAMES, self._allowance + int(FRAMES_A_SECOND * share))

    def earn_data(self, size: int) -> None:
        """Content of `size` bytes goes to the peer, which answers with WINDOW_UPDATE frames."""
        self.earn(_FRAMES_FOR_DATA * (1 + size // FRAME_BYTES))

    def _size(self) -> int | None:
        """The size of the next frame with what comes before it; None until it is whole. Raises FrameRefused."""
        start = self._preface_left
        if start and not _PREFACE.startswith(self.buffer[:start]):
            raise FrameRefused(PROTOCOL_ERROR, "no HTTP/2 preface")
        if len(self.buffer) < start + _HEADER_BYTES:
            return None
        length = int.from_bytes(self.buffer[start : start + 3])
        if length > FRAME_BYTES:
            raise FrameRefused(FRAME_SIZE_ERROR, "a frame over 16 KiB")
        size = start + _HEADER_BYTES + length
        return size if len(self.buffer) >= size else None

    def _next_size(self) -> int | None:
        """As `_size`, and the frame is paid for. Raises FrameRefused."""
        size = self._size()
        if size is None:
            return None
        start = self._preface_left
        length = size - start - _HEADER_BYTES
        kind, flags = self.buffer[start + 3], self.buffer[start + 4]
        if kind in {_HEADERS, _PUSH_PROMISE, _CONTINUATION}:
            self._block_bytes = (self._block_bytes or 0) + length
            self._continuations = self._continuations + 1 if kind == _CONTINUATION else 0
            if self._block_bytes > self._block_limit or self._continuations > _CONTINUATIONS:
                raise FrameRefused(ENHANCE_YOUR_CALM, "a header block over its limit")
            if flags & _END_HEADERS:
                self._block_bytes = self._incomplete_since = None
        if kind == _HEADERS:
            self.earn(_FRAMES_FOR_HEADERS)
        elif kind == _DATA and (flags & _END_STREAM or length > self._padding(start, length, flags)):
            if length > FRAME_BYTES >> 3:
                self.earn(1)
        else:
            self._allowance -= 1
            if self._allowance < 0:
                raise FrameRefused(ENHANCE_YOUR_CALM, "too many control frames")
        return size

    def _padding(self, start: int, length: int, flags: int) -> int:
        """How much of a DATA frame's payload is padding with its length (RFC 9113 section 6.1)."""
        return 1 + self.buffer[start + _HEADER_BYTES] if flags & _PADDED and length else 0
