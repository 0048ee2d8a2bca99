"""Decision log (the record): one JSON line for each decision on the staff plane.

Law: a line never holds a body, a credential, a cookie or a query value, and an event of a zero-log
route cannot even be made.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.core.decision import NO_SIGNAL, RiskReport
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session

LINE_LIMIT_BYTES = 65_536
_MODE = 0o600
_PATH_LIMIT = 2048
_TEXT_LIMIT = 512
_LIST_LIMIT = 50
# ASCII only, and every control character escaped: a line cannot be broken from inside.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
_PID = os.getpid()


def _after_fork() -> None:
    global _PID  # noqa: PLW0603 - the process's own number changes in a child, and getpid() is a system call
    _PID = os.getpid()


os.register_at_fork(after_in_child=_after_fork)


class FileRecorder:
    """Appends lines to a file that several processes share; meets `core.ports.Recorder`.

    Each line goes out in a single write to an O_APPEND descriptor, so lines of several workers do not mix. There is no
    fsync: a line is in the kernel when `record` returns and outlives a kill -9 of the process, not a power cut.
    """

    def __init__(self, path: Path) -> None:
        """Open or create `path` (mode 0600) and its folder (0700). Raises OSError."""
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = self._open()
        self._torn = False

    def record(self, event: Mapping[str, Any]) -> None:
        """Write one line. Raises OSError when it is not written in full (disk full, line too long)."""
        line = (_encode(event) + "\n").encode("ascii")
        if len(line) > LINE_LIMIT_BYTES:
            raise OSError(errno.EMSGSIZE, "the record's line is too long")
        if self._torn:
            line = b"\n" + line
        written = os.write(self._fd, line)
        # A piece of a line stays behind; the next line must not be glued to it.
        self._torn = written != len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, "the record's line was cut off")

    def reopen(self) -> None:
        """Go on in a new file under the same path, after the old one was moved away. Raises OSError, and goes on."""
        fresh = self._open()
        try:
            os.dup2(fresh, self._fd, inheritable=False)
        finally:
            os.close(fresh)
        self._torn = False

    def close(self) -> None:
        """Close the file; a later `record` raises OSError."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> int:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) != _MODE:
            os.fchmod(fd, _MODE)
        return fd


def decision_event(
    *,
    ts: float,
    decision_id: str,
    effect: str,
    reasons: Sequence[str],
    status: int | None,
    peer: Peer,
    edge: str,
    policy_version: str,
    timings_us: Mapping[str, int],
    facts: RequestFacts | None = None,
    route: Route | None = None,
    device: Device | None = None,
    identity: Identity | None = None,
    session: Session | None = None,
    risk: RiskReport = NO_SIGNAL,
    obligations: Sequence[str] = (),
    reactions: Sequence[str] = (),
    detail: str = "",
    cut: bool = False,
) -> dict[str, Any]:
    """The event of one decision, ready for a `Recorder`.

    `ts` is seconds since the epoch; `status` is None for a request that goes on; `timings_us` are whole microseconds by
    stage; `detail` is a refusal's. `cut`: it ends a request that was allowed before. `session.id` is a record's name,
    never a bearer secret. Without a route the caller must know that every service of the host is on the staff plane.
    Raises ValueError for a zero-log route.
    """
    if route is not None and route.zero_log:
        raise ValueError("a zero-log route leaves no record")
    event: dict[str, Any] = {
        "v": 1,
        "ts": ts,
        "decision": decision_id,
        "effect": effect,
        "reasons": [code[:64] for code in reasons[:_LIST_LIMIT]],
        "status": status,
        "service": route.service if route is not None else None,
        "plane": route.plane if route is not None else None,
        "ja4": peer.ja4[:64],
    }
    if facts is not None:
        event["method"] = facts.method
        event["host"] = facts.host
        event["path"] = facts.path[:_PATH_LIMIT]
        event["protocol"] = facts.protocol
        event["client_ip"] = facts.client_ip
    else:
        event["host"] = (peer.sni or "")[:256]
        event["client_ip"] = peer.ip
    if detail:
        event["detail"] = detail[:_TEXT_LIMIT]
    if identity is not None:
        event["issuer"] = identity.issuer[:_TEXT_LIMIT]
        event["subject"] = identity.subject[:256]
        event["name"] = identity.name[:256]
        event["client_id"] = identity.client_id[:256]
        event["roles"] = [role.key[:64] for role in identity.roles[:_LIST_LIMIT]]
    if device is not None:
        event["device"] = device.id
    if session is not None:
        event["session"] = session.id[:256]
    event["risk"] = risk.score
    if risk.terms:
        event["risk_level"] = risk.level
        event["risk_terms"] = {term.name[:64]: round(term.value, 3) for term in risk.terms[:_LIST_LIMIT]}
    event["obligations"] = [kind[:64] for kind in obligations[:_LIST_LIMIT]]
    if cut:
        event["cut"] = True
    if reactions:
        event["reactions"] = list(reactions[:_LIST_LIMIT])
    event["policy"] = policy_version
    event["timings_us"] = dict(timings_us)
    event["edge"] = edge
    event["pid"] = _PID
    return event
