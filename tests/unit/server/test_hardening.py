"""Process hardening: what a worker and the supervisor take away from themselves."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, resource
from gateway.server.hardening import harden_process
resource.setrlimit(resource.RLIMIT_CORE, (1024, resource.getrlimit(resource.RLIMIT_CORE)[1]))
harden_process()
libc = ctypes.CDLL(None)
print(resource.getrlimit(resource.RLIMIT_CORE), libc.prctl(3, 0, 0, 0, 0), libc.prctl(39, 0, 0, 0, 0))
"""


def test_a_hardened_process_dumps_no_core_and_gains_no_privileges() -> None:
    made = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "(0, 0) 0 1"
