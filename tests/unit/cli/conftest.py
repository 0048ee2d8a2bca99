"""A fresh folder from `gateway init`, a live upstream, a port where nobody listens."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_world import Site, change, gateway, serving


@pytest.fixture(autouse=True)
def no_surprises(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE", "GATEWAY_CONFIG", "GATEWAY_ENROLMENT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def upstream() -> Iterator[str]:
    with serving({}) as base:
        yield base


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "site"
    result = gateway("init", folder, "--upstream", "http://127.0.0.1:1")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def site(_made: Path, tmp_path: Path, upstream: str) -> Path:
    """A copy of a fresh folder whose one service is alive."""
    folder = tmp_path / "site"
    shutil.copytree(_made, folder)
    change(folder, lambda text: text.replace("http://127.0.0.1:1\n", f"{upstream}\n"))
    return folder


@pytest.fixture
def here(site: Path) -> Site:
    return Site(site)
