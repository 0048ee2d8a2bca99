"""Real OPA servers on loopback, from .tools/opa, and bundles to fill them with."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.policy.bundle.loader import load
from gateway.policy.bundle.model import Bundle
from gateway.policy.engines.server import OpaEngine
from tests.support.paths import TOOLS

BINARY = TOOLS / "opa"


class Opas:
    """The servers of one test."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *arguments: str, port: int = 0) -> str:
        """Start a server and answer its address."""
        address = f"127.0.0.1:{port or _free_port()}"
        quiet = ["--log-level", "error", "--disable-telemetry"]
        command = [str(BINARY), "run", "--server", "--addr", address, *quiet, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://{address}"
        self._running[url] = process
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"{url}/health?bundles", trust_env=False).status_code == httpx.codes.OK:
                    return url
            except httpx.TransportError:
                pass
            time.sleep(0.03)
        return pytest.fail("the OPA server did not start")

    def stop(self, url: str) -> None:
        process = self._running.pop(url)
        process.kill()
        process.wait()

    def stop_all(self) -> None:
        for url in list(self._running):
            self.stop(url)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bundle(folder: Path, modules: Mapping[str, str], services: Mapping[str, Any] = {}, data: Any = None) -> Bundle:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    for name, source in modules.items():
        (folder / name).write_text(source)
    if data is not None:
        (folder / "data/data.json").write_text(json.dumps(data))
    return load(folder, services)


def policy(body: str) -> dict[str, str]:
    return {"authz.rego": f"package gateway.authz\n\n{body}\n"}


@asynccontextmanager
async def pushed(url: str, what: Bundle) -> AsyncIterator[OpaEngine]:
    engine = OpaEngine(what, url)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()
