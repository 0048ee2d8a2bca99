"""File descriptors (RLIMIT_NOFILE): raised at start, shared out among connections, watched while connections arrive."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

from gateway.config import Config, ConfigError, Limits, Problem, load

# Logs, state, issuers, probes, and what a library opens for a moment.
_RESERVE = 256
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})


def raise_limit() -> int:
    """Raise the soft limit to the hard one; how many descriptors this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def are_exhausted() -> bool:
    """Whether no descriptor is left, so that no connection can be accepted."""
    try:
        os.close(os.dup(2))
    except OSError as error:
        return error.errno in _EXHAUSTED
    return False


def load_fitting(path: Path) -> Config:
    """The configuration, with limits that fit this process. Raises ConfigError when written ones do not."""
    config = load(path)
    return config.model_copy(update={"limits": fit(config.limits, path, raise_limit())})


def fit(limits: Limits, path: Path, available: int) -> Limits:
    """Limits that fit `available` descriptors: defaults shrink, written ones do not. Raises ConfigError for those."""
    room = available - _RESERVE
    if limits.connections + limits.upstream_connections <= room:
        return limits
    written = [name for name in ("connections", "upstream_connections") if name in limits.model_fields_set]
    wanted = sum(getattr(limits, name) for name in written)
    # A quarter is for upstreams, unless one of the two is written.
    shares = {"connections": room - room // 4, "upstream_connections": room // 4}
    if len(written) == 1 and wanted < room:
        [other] = shares.keys() - written
        shares = {written[0]: wanted, other: room - wanted}
    if any(shares[name] < getattr(limits, name) for name in written) or min(shares.values()) < 1:
        message = f"These connections need {wanted + _RESERVE} file descriptors, and this process may have {available}."
        fix = "Raise the hard limit (`ulimit -Hn`, LimitNOFILE= in systemd), or write smaller limits."
        raise ConfigError([Problem(path, 0, 0, f"limits.{(written or ['connections'])[0]}", message, fix)])
    smaller = {name: min(size, getattr(limits, name)) for name, size in shares.items()}
    return limits.model_copy(update=smaller)
