"""One command to the first protected page: the real command, a real service, a person with a browser."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.demo.clients import chromium

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("quickstart")]
START_S = 60


class _Service(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"<h1>Hello from the service</h1><p>{self.path}</p>".encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Started:
    process: subprocess.Popen[str]
    facts: dict[str, str]
    seconds: float


@contextlib.contextmanager
def quickstart(cwd: Path, *arguments: str) -> Iterator[Started]:
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "quickstart", *arguments, "--no-open"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert process.stdout is not None
    facts = {}
    try:
        for line in process.stdout:
            name, value = re.split(r"\s{2,}", line.strip(), maxsplit=1)
            facts[name] = value
            if name in {"password", "redirect"}:
                break
        yield Started(process, facts, time.monotonic() - begun)
        process.send_signal(signal.SIGINT)
        assert process.wait(START_S) == 0, process.stderr.read() if process.stderr else ""
    finally:
        process.kill()
        process.communicate()


def spki(certificate: Path) -> str:
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode("ascii")


def test_one_command_leads_a_person_with_a_browser_to_the_page(service, tmp_path):
    if not chromium.starts():
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("chromium is not installed; `sh tests/tools.sh` installs it where it may")
    with quickstart(tmp_path, service) as started:
        facts = started.facts
        assert urlsplit(facts["address"]).hostname == "app.localhost"
        site = tmp_path / "gateway-quickstart"
        with chromium.browsing(["MAP *.localhost 127.0.0.1"], spki(site / "pki/server.pem")) as browser:
            browser.open(facts["address"] + "deep/link?x=1")
            browser.fill("loginName", facts["sign in"])
            browser.fill("password", facts["password"])
            browser.press("button")
            browser.wait("document.body.innerText.includes('Hello from the service')")
            assert "/deep/link?x=1" in browser.text
    record = (site / "state/decisions.jsonl").read_text()
    assert facts["password"] not in record
    # The folder is served again as it is, with the same person and address.
    with quickstart(tmp_path, service) as again:
        assert again.facts == facts


def test_what_it_writes_passes_check_and_names_the_redirect_uri_of_a_real_provider(service, tmp_path):
    (tmp_path / "secret").write_text("a-secret\n")
    issuer = ("--issuer", service, "--client-id", "gateway", "--secret-file", "secret", "--dir", "site")
    with quickstart(tmp_path, service, *issuer) as started:
        redirect = started.facts["redirect"]
        assert re.fullmatch(r"https://gateway\.localhost:\d+/\.gateway/callback/login", redirect)
    checked = subprocess.run(
        [sys.executable, "-m", "gateway", "check", "--offline", "-c", "site/gateway.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "check: 0 problems, 0 warnings" in checked.stdout


def test_a_taken_port_and_a_bad_address_are_told_in_words(tmp_path):
    bad = subprocess.run(
        [sys.executable, "-m", "gateway", "quickstart", "localhost:3000", "--no-open"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert bad.returncode == 1
    assert "Write it like http://127.0.0.1:8080." in bad.stderr
    assert not list(tmp_path.iterdir())


def test_the_folder_goes_on_as_a_production_site(service, tmp_path):
    with quickstart(tmp_path, service):
        pass
    rule = tmp_path / "gateway-quickstart/policies/gateway/own.rego"
    rule.write_text("package gateway.authz\n")
    command = [sys.executable, "-m", "gateway", "init", "site", "--from", "gateway-quickstart"]
    done = subprocess.run(
        [*command, "--host", "gateway.corp.example"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "site/gateway.yaml").read_text()
    assert "host: app.corp.example" in text
    assert f"upstream: {service}" in text
    assert "device: required" in text
    assert "127.0.0.1:" not in text.partition("services:")[0].replace("# url: http://127.0.0.1:8181", "")
    assert (tmp_path / "site/policies/gateway/own.rego").exists()
