"""Running the command line in process, small servers on loopback, edits of a gateway.yaml."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from gateway.cli.app import app

Answers = dict[str, tuple[int, Any]]


def gateway(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


@contextlib.contextmanager
def serving(answers: Answers) -> Iterator[str]:
    """An HTTP server that answers GET paths with (status, JSON); a text's {base} is the server's own address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, value = answers.get(self.path, (404, {}))
            body = json.dumps(value).replace("{base}", base).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield base
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def change(folder: Path, edit: Callable[[str], str]) -> Path:
    """Edit gateway.yaml; it must change."""
    file = folder / "gateway.yaml"
    before = file.read_text(encoding="utf-8")
    after = edit(before)
    assert after != before
    file.write_text(after, encoding="utf-8")
    return file


def line_of(folder: Path, text: str) -> int:
    """The line of gateway.yaml that holds a text."""
    lines = (folder / "gateway.yaml").read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


class Site:
    """A folder with a gateway.yaml; commands run on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "gateway.yaml"

    def run(self, *arguments: object, stdin: str | None = None) -> Result:
        return gateway(*arguments, "-c", self.file, stdin=stdin)

    def read(self, *arguments: object) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)
