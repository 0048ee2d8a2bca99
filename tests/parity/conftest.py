"""A real OPA server on loopback, from .tools/opa."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

BINARY = Path(__file__).parents[2] / ".tools" / "opa"

type StartOpa = Callable[..., str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def opa_binary() -> Path:
    if not BINARY.exists():
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no OPA server in .tools/opa (tests/tools.sh builds it where Go is)")
    return BINARY


@pytest.fixture
def start_opa(opa_binary: Path) -> Iterator[StartOpa]:
    """start_opa(*arguments, port=0) -> its address; every server is stopped at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, port: int = 0) -> str:
        address = f"127.0.0.1:{port or free_port()}"
        quiet = ["--log-level", "error", "--disable-telemetry"]
        command = [str(opa_binary), "run", "--server", "--addr", address, *quiet, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running.append(process)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"http://{address}/health?bundles", trust_env=False).status_code == httpx.codes.OK:
                    return f"http://{address}"
            except httpx.TransportError:
                pass
            time.sleep(0.03)
        return pytest.fail("the OPA server did not start")

    start.running = running  # type: ignore[attr-defined]
    yield start
    for process in running:
        process.kill()
        process.wait()
