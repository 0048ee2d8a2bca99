"""Process hardening (Linux prctl(2), setrlimit(2)): no core dump, no debugger, no new privileges.

A core dump would hold keys, tokens and requests of the zero-log plane.
"""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


def harden_process() -> None:
    """Apply to this process what holds for it and its children. Raises OSError where the kernel refuses."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl({option})")
