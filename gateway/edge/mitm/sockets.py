"""Sockets below the event loop: listening together, and what waits to be sent."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct

# Linux: bytes that the kernel has not sent yet (SIOCOUTQNSD in linux/sockios.h).
_NOT_SENT = 0x894B


def listening_socket(address: str, port: int) -> socket.socket:
    """A TCP socket of our own on a shared port; the kernel spreads connections over all of them. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((address, port))
    return listener


def unsent_bytes(transport: asyncio.Transport) -> int:
    """What waits for the peer to read on, in this process and, on Linux, in the kernel."""
    waiting = transport.get_write_buffer_size()
    answer = bytearray(4)
    try:
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), _NOT_SENT, answer)
    except (OSError, ValueError, AttributeError):
        return waiting
    return waiting + int(struct.unpack("i", answer)[0])


def discard_unsent(transport: asyncio.Transport) -> None:
    """Let the next close throw away what waits, with a reset instead of a goodbye."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
