"""PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): who connected to the balancer before us.

Law: a header is read whole or the connection ends. It is asked of trusted addresses only, and there it must come.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
# Version 1: "the longest line": 107 bytes with CRLF (section 2.1). Version 2: with TLVs, what a balancer may add.
_V1_BYTES, HEADER_BYTES = 107, 16 + 4096
_HEAD_BYTES = 16
_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}) ([0-9]{1,5}) ([0-9]{1,5})\r\n\Z")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?\r\n\Z")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6, _UNSPEC = 0x11, 0x21, 0x00
_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Source:
    """Whom a balancer speaks for; `ip` is empty when it speaks for itself (a health check)."""

    ip: str
    port: int


class BadHeader(ValueError):
    """This is no PROXY protocol header."""


def read_header(data: bytes) -> tuple[Source, int] | None:
    """The source and the size of the header that `data` begins with; None until it is whole. Raises BadHeader."""
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_v2(data) if len(data) >= _HEAD_BYTES else None
    if data[:6] != b"PROXY "[: len(data)]:
        raise BadHeader("no signature")
    end = data.find(b"\r\n", 0, _V1_BYTES)
    if end < 0:
        if len(data) >= _V1_BYTES or b"\n" in data:
            raise BadHeader("no end of the line")
        return None
    return _read_v1(data[: end + 2]), end + 2


def _read_v1(line: bytes) -> Source:
    if _UNKNOWN.match(line):
        return Source("", 0)
    match = _V1.match(line)
    if match is None:
        raise BadHeader("line")
    version = 4 if match[1] == b"TCP4" else 6
    source, _ = (_address(match[number].decode("ascii"), version) for number in (2, 3))
    ports = [int(match[number]) for number in (4, 5)]
    # Section 2.1: no leading zeroes.
    if max(ports) > _MAX_PORT or [str(port).encode() for port in ports] != [match[4], match[5]]:
        raise BadHeader("port")
    return Source(source, ports[0])


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise BadHeader("address") from None
    if address.version != version:
        raise BadHeader("address family")
    return _plain(address)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _read_v2(data: bytes) -> tuple[Source, int] | None:
    command, family = data[12], data[13]
    size = _HEAD_BYTES + int.from_bytes(data[14:16])
    if command not in {_LOCAL, _PROXY}:
        raise BadHeader("version or command")
    if size > HEADER_BYTES:
        raise BadHeader("too long")
    if len(data) < size:
        return None
    if command == _LOCAL:
        # Section 2.2: the balancer's own connection; what else the header says is ignored.
        return Source("", 0), size
    body = data[_HEAD_BYTES:size]
    if family == _UNSPEC:
        return Source("", 0), size
    width = {_TCP4: 4, _TCP6: 16}.get(family)
    if width is None:
        raise BadHeader("not TCP")
    addresses = 2 * width + 4
    if len(body) < addresses:
        raise BadHeader("short addresses")
    _check_tlvs(body[addresses:])
    source = ipaddress.ip_address(bytes(body[:width]))
    return Source(_plain(source), int.from_bytes(body[2 * width : 2 * width + 2])), size


def _check_tlvs(rest: bytes) -> None:
    """Section 2.2.1: a type, two bytes of length, the value; nothing is left over."""
    while rest:
        if len(rest) < 3 or len(rest) < 3 + int.from_bytes(rest[1:3]):  # noqa: PLR2004
            raise BadHeader("TLV")
        rest = rest[3 + int.from_bytes(rest[1:3]) :]


class Preamble:
    """The beginning of a balancer's connection, until the header is whole."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes, take_over: Callable[[Source], None], transport: asyncio.Transport) -> bytes:
        """What follows the header; empty until something does. A bad header ends the connection."""
        self._data += data
        try:
            header = read_header(bytes(self._data[:HEADER_BYTES]))
        except BadHeader:
            transport.abort()
            return b""
        if header is None or len(self._data) == header[1]:
            return b""
        source, size = header
        if source.ip:
            take_over(source)
        return bytes(self._data[size:])
