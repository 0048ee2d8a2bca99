"""How an HTTP/1.1 message is cut out of its connection: header lines, lengths, chunks (RFC 9112 sections 5 to 7).

Law: one reading only. What a lenient parser would mend (a bare line feed, a folded line, two lengths, a sloppy chunk)
is `Malformed` here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Fields = tuple[tuple[bytes, bytes], ...]
UNTIL_CLOSE = -1
CHUNKED = -2

# Possessive: a line that does not match costs no second look (a field of spaces would cost them by the cube).
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9a-zA-Z]++):([^\r\n\x00]*+)\Z")
_FIELD_OF_RESPONSE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9a-zA-Z]++)[ \t]*+:([^\r\n\x00]*+)\Z")
_LENGTH = re.compile(rb"(?:0|[1-9][0-9]{0,18})\Z")
_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}\Z")
_SIZE_BEGUN = re.compile(rb"[0-9a-fA-F]{0,16}\r?\Z")
_SIZE_EXTENDED = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n\x00]*)?\Z")
_CHUNK_LINE_BYTES = 256
_TRAILER_BYTES = 8192
_STEPS_A_TURN = 1024


class Malformed(ValueError):
    """A message that is not to be believed."""


def read_fields(
    lines: Iterable[bytes], *, space_before_colon: bool = False
) -> tuple[Fields, list[bytes], list[bytes], bool]:
    """Header fields, every Content-Length, every Transfer-Encoding, and whether the connection ends after this.

    `space_before_colon`: white space there is removed, as a proxy does with responses (RFC 9112 section 5.1).
    """
    pattern = _FIELD_OF_RESPONSE if space_before_colon else _FIELD
    fields: list[tuple[bytes, bytes]] = []
    lengths: list[bytes] = []
    encodings: list[bytes] = []
    last = False
    for line in lines:
        field = pattern.match(line)
        if field is None:
            raise Malformed("header line")
        name, value = field[1], field[2].strip(b" \t")
        fields.append((name, value))
        match name.lower():
            case b"content-length":
                lengths.append(value)
            case b"transfer-encoding":
                encodings.append(value.lower())
            case b"connection":
                last = last or b"close" in value.lower()
            case _:
                pass
    return tuple(fields), lengths, encodings, last


def body_size(lengths: list[bytes], encodings: list[bytes], default: int) -> int:
    """The body's length, `CHUNKED`, or `default` when nothing is said. Raises Malformed."""
    if encodings:
        if lengths or encodings != [b"chunked"]:
            raise Malformed("framing")
        return CHUNKED
    if not lengths:
        return default
    if len(lengths) > 1 or not _LENGTH.match(lengths[0]):
        raise Malformed("framing")
    return int(lengths[0])


def take(buf: bytearray, most: int) -> bytes:
    """Cut up to `most` bytes from the front."""
    data = bytes(buf) if most >= len(buf) else bytes(buf[:most])
    del buf[: len(data)]
    return data


class Chunks:
    """A chunked body. A request's may have no chunk extensions: nobody needs them, and parsers disagree on them.

    `is_waiting`: the last turn ended before the input did.
    """

    def __init__(self, *, extensions: bool) -> None:
        self._extensions = extensions
        self._left = 0
        self._stage = "size"
        self._trailer_bytes = 0
        self.is_waiting = False
        self.trailers: list[tuple[bytes, bytes]] = []

    def read(self, buf: bytearray) -> tuple[bytes, bool]:
        """What has arrived of the body, as far as one turn goes, and whether it is complete. Raises Malformed."""
        pieces: list[bytes] = []
        self.is_waiting = False
        for _ in range(_STEPS_A_TURN):
            if not buf or self._stage == "done":
                break
            if self._stage == "data":
                pieces.append(data := take(buf, self._left))
                self._left -= len(data)
                if not self._left:
                    self._stage = "end"
            elif self._stage == "end":
                if not b"\r\n".startswith(buf[:2]):
                    raise Malformed("chunk end")
                if len(buf) < 2:  # noqa: PLR2004
                    break
                del buf[:2]
                self._stage = "size"
            elif (line := self._line(buf)) is None:
                break
            elif self._stage == "size":
                self._left = self._size(line)
                self._stage = "data" if self._left else "trailers"
            elif not line:
                self._stage = "done"
            else:
                self._trailer_bytes += len(line)
                if self._trailer_bytes > _TRAILER_BYTES:
                    raise Malformed("trailers")
                self.trailers += read_fields([line], space_before_colon=self._extensions)[0]
        else:
            self.is_waiting = bool(buf) and self._stage != "done"
        return b"".join(pieces), self._stage == "done"

    def _line(self, buf: bytearray) -> bytes | None:
        in_size = self._stage == "size"
        most = _CHUNK_LINE_BYTES if in_size else _TRAILER_BYTES
        end = buf.find(b"\r\n", 0, most + 2)
        if end < 0:
            if len(buf) > most or (in_size and not self._extensions and not _SIZE_BEGUN.match(buf)):
                raise Malformed("chunk")
            return None
        return take(buf, end + 2)[:-2]

    def _size(self, line: bytes) -> int:
        if self._extensions:
            found = _SIZE_EXTENDED.match(line)
            size = found[1] if found else b""
        else:
            size = line if _SIZE.match(line) else b""
        if not size:
            raise Malformed("chunk size")
        return int(size, 16)
