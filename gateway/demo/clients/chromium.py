"""A headless Chromium, driven over its DevTools protocol: pages opened, forms filled in, texts read.

Every wait ends: what is not there in time raises `BrowserFailed` with what the page says instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

_START_S, _WAIT_S, _POLL_S = 20.0, 10.0, 0.05
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_MESSAGE_BYTES = 32 << 20


class BrowserFailed(Exception):
    """The browser did not start, or a page did not become what was waited for."""


def installed() -> str | None:
    """The Chromium of this machine, None without one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def starts() -> bool:
    """Whether there is a Chromium that this machine lets run."""
    try:
        with browsing((), ""):
            return True
    except BrowserFailed:
        return False


class Chromium:
    """One page of one browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; its result. Raises BrowserFailed."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        until = time.monotonic() + _WAIT_S
        while time.monotonic() < until:
            answer = json.loads(self._socket.recv(timeout=_WAIT_S))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserFailed(f"{method}: {answer['error'].get('message', '')}")
                found: dict[str, Any] = answer["result"]
                return found
        raise BrowserFailed(f"{method} took too long")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; None while there is none."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return found.get("result", {}).get("value")

    def open(self, url: str) -> None:
        """Go there and wait until a page stands."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'", url)

    def wait(self, condition: str, label: str = "") -> None:
        """Wait until an expression is true in whatever page is there by then. Raises BrowserFailed."""
        until = time.monotonic() + _WAIT_S
        while time.monotonic() < until:
            with contextlib.suppress(BrowserFailed):  # between two pages there is none to ask
                if self.run(condition) is True:
                    return
            time.sleep(_POLL_S)
        raise BrowserFailed(f"waited for {label or condition}, stands at {self.address}: {self.text[:160]!r}")

    def fill(self, name: str, value: str) -> None:
        """Write into the form field of this name."""
        field = f"document.querySelector({json.dumps(f'[name={json.dumps(name)}]')})"
        self.wait(f"{field} !== null", f"a field {name}")
        self.run(f"{field}.value = {json.dumps(value)}")

    def press(self, selector: str) -> None:
        """Click the element of this CSS selector, as a person does."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"{element} !== null", f"something to press: {selector}")
        self.run(f"{element}.click()")

    def picture(self, file: Path) -> None:
        """A screenshot."""
        file.write_bytes(b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    @property
    def address(self) -> str:
        """Where the page is."""
        return str(self.run("location.href") or "")

    @property
    def text(self) -> str:
        """What the page says."""
        return str(self.run("document.body ? document.body.innerText : ''") or "")

    def cookies(self, url: str) -> dict[str, str]:
        """The browser's cookies for an address, those that no script sees too."""
        found = self.call("Network.getCookies", urls=[url])["cookies"]
        return {cookie["name"]: cookie["value"] for cookie in found}


@contextlib.contextmanager
def browsing(hosts: Sequence[str], spki_sha256: str) -> Iterator[Chromium]:
    """A browser with an empty profile, until the block ends.

    `hosts` are rules like "MAP a.localhost:443 127.0.0.1:8443"; `spki_sha256` (base64) is the only server key beside
    the public ones that it accepts. Raises BrowserFailed where there is no Chromium, or it does not start.
    """
    binary = installed()
    if binary is None:
        raise BrowserFailed("there is no Chromium on this machine")
    # Below /tmp whatever TMPDIR says: Chromium puts a socket there, whose path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="gateway-chromium-", dir="/tmp", ignore_cleanup_errors=True) as profile:
        arguments = [
            binary,
            "--headless=new",
            "--no-sandbox" if os.geteuid() == 0 else "--disable-crash-reporter",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            f"--host-resolver-rules={', '.join(hosts)}",
            f"--ignore-certificate-errors-spki-list={spki_sha256}",
            "about:blank",
        ]
        said = Path(profile) / "said"
        with said.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  (the machine's own browser)
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                env=os.environ | {"TMPDIR": profile},
            )
        try:
            with connect(_page(Path(profile), process), max_size=_MESSAGE_BYTES, proxy=None) as socket:
                yield Chromium(socket)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _page(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The WebSocket address of the browser's page."""
    file = profile / "DevToolsActivePort"
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, httpx.HTTPError, LookupError):
            port = int(file.read_text(encoding="ascii").split()[0])
            pages = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False).json()
            return str(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))
        time.sleep(_POLL_S)
    said = (profile / "said").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise BrowserFailed(f"Chromium did not start: {said[-1][:300] if said else 'it says nothing'}")
