"""The PROXY protocol's header, by the examples of its specification; strict in everything else."""

from __future__ import annotations

import struct

import pytest

from gateway.edge.proxy_protocol import SIGNATURE, BadHeader, Source, read_header


def v2(command: int, family: int, body: bytes, *, size: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(body) if size is None else size) + body


TCP4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack(">HH", 56324, 443)
TCP6 = bytes.fromhex("20010db8000000000000000000000007") + bytes(15) + b"\1" + struct.pack(">HH", 4124, 443)
TLV = b"\x01\x00\x02h2" + b"\x04\x00\x00"
WHOLE = [
    # The examples of section 2.1.
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Source("255.255.255.255", 65535)),
    (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", Source("192.168.0.1", 56324)),
    (b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
     Source("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Source("192.0.2.1", 1)),
    (b"PROXY UNKNOWN\r\n", Source("", 0)),
    (b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
     Source("", 0)),
    (v2(0x21, 0x11, TCP4), Source("192.0.2.7", 56324)),
    (v2(0x21, 0x11, TCP4 + TLV), Source("192.0.2.7", 56324)),
    (v2(0x21, 0x21, TCP6), Source("2001:db8::7", 4124)),
    (v2(0x20, 0x00, b""), Source("", 0)),
    (v2(0x20, 0x11, TCP4), Source("", 0)),
    (v2(0x21, 0x00, b""), Source("", 0)),
]  # fmt: skip


@pytest.mark.parametrize(("header", "source"), WHOLE)
@pytest.mark.parametrize("rest", [b"", b"\x16\x03\x01 client hello"])
def test_a_header_is_read_and_what_follows_is_left(header, source, rest):
    assert read_header(header + rest) == (source, len(header))


@pytest.mark.parametrize(("header", "_"), WHOLE)
def test_a_part_of_a_header_waits_for_the_rest(header, _):
    assert all(read_header(header[:size]) is None for size in range(len(header)))


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 1\r\n",
        b"PROXY  TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
        b"PROXY TCP4 192.168.0.01 192.168.0.11 1 443\r\n",
        b"PROXY TCP4 ::1 ::1 1 443\r\n",
        b"PROXY TCP6 192.168.0.1 192.168.0.11 1 443\r\n",
        b"PROXY UDP4 192.168.0.1 192.168.0.11 1 443\r\n",
        b"PROXY tcp4 192.168.0.1 192.168.0.11 1 443\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY TCP4 " + b"1" * 100 + b"\r\n",
        b"PROXY TCP4 " + b"1" * 100,
        v2(0x11, 0x11, TCP4),
        v2(0x22, 0x11, TCP4),
        v2(0x21, 0x12, TCP4),
        v2(0x21, 0x31, bytes(216)),
        v2(0x21, 0x11, TCP4[:-1]),
        v2(0x21, 0x21, TCP4),
        v2(0x21, 0x11, TCP4 + b"\x01"),
        v2(0x21, 0x11, TCP4 + b"\x01\x00\x05h2"),
        v2(0x21, 0x11, TCP4, size=5000),
    ],
)
def test_anything_else_ends_the_connection(data):
    with pytest.raises(BadHeader):
        read_header(data)
