"""TCP ports of the configuration, bound before anything is served."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from gateway.config import ConfigError, Problem
from gateway.edge.mitm.sockets import listening_socket


def reserve_port(file: Path, section: str, address: str, port: int) -> socket.socket:
    """The port of a section of the configuration, bound and not listening. Raises ConfigError when it is taken."""
    fix = f"Stop what listens there, or choose another {section}.port."
    try:
        with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)) as probe:
            probe.settimeout(1)
            # Ports are shared among workers, so another gateway would quietly get half of the requests.
            taken = bool(port) and probe.connect_ex((address, port)) == 0
        if not taken:
            return listening_socket(address, port)
        trouble = "something listens there"
    except OSError as error:
        trouble = error.strerror or type(error).__name__
    raise ConfigError([Problem(file, 0, 0, f"{section}.port", f"{address}:{port} cannot be used: {trouble}.", fix)])
