"""Services that listen on this machine, so that `gateway init` can offer them. Linux; elsewhere none are found."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN = "0A"  # TCP_LISTEN of include/net/tcp_states.h
_LEAST_PORT = 1_024
_IPV4_DIGITS = 8
_MOST = 64
_TIMEOUT_S = 0.3


def web_services() -> Sequence[str]:
    """The addresses of this machine that answer HTTP, the lowest port first, such as http://127.0.0.1:3000."""
    with httpx.Client(trust_env=False, timeout=_TIMEOUT_S, verify=True) as client:
        return [f"http://127.0.0.1:{port}" for port in listening_ports()[:_MOST] if _speaks_http(client, port)]


def listening_ports(tables: Sequence[Path] = _TABLES) -> Sequence[int]:
    """Unprivileged TCP ports on loopback or on every address, in order."""
    return sorted({port for table in tables for port in _ports(table) if port >= _LEAST_PORT})


def _ports(table: Path) -> Iterator[int]:
    try:
        rows = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return
    for row in rows:
        match row.split():
            case [_, local, _, state, *_] if state == _LISTEN:
                address, _, port = local.partition(":")
                if _is_local(address):
                    yield int(port, 16)


def _is_local(address: str) -> bool:
    """Whether 127.0.0.1 reaches a socket bound there: hex in the byte order of a little-endian machine."""
    return not address.strip("0") or (len(address) == _IPV4_DIGITS and address.endswith("7F"))


def _speaks_http(client: httpx.Client, port: int) -> bool:
    try:
        client.head(f"http://127.0.0.1:{port}/")
    except httpx.HTTPError:
        return False
    return True


def free_port(wanted: int) -> int:
    """`wanted` where nothing listens there on 127.0.0.1, else a free port. 0 wants any."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as server:
            free: int = server.getsockname()[1]
            return free
    raise OSError("no free port on 127.0.0.1")
