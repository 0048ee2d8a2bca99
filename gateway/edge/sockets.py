"""Listening sockets that several processes share."""

from __future__ import annotations

import socket


def listening_socket(address: str, port: int) -> socket.socket:
    """A TCP socket of our own on a shared port; the kernel spreads connections over all of them. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((address, port))
    return made
