"""`gateway device`, `gateway session` and `gateway pki`, on a real store and a real PKI."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from typer.testing import Result

from gateway.config import load
from gateway.core.ports.stores import SessionRecord
from gateway.wiring import open_state
from tests.support.cli_world import gateway


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "gateway.yaml"

    def run(self, *arguments: object, stdin: str | None = None) -> Result:
        return gateway(*arguments, "-c", self.file, stdin=stdin)

    def read(self, *arguments: object) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def here(site: Path) -> Site:
    return Site(site)


def test_a_device_is_added_listed_shown_and_revoked(here: Site) -> None:
    added = here.run("device", "add", "laptop-7", "--owner", "ann", "--department", "it")
    assert added.exit_code == 0
    assert added.stdout.startswith("gwe_")
    assert added.stdout.strip() not in added.stderr
    assert "gateway device enroll https://gateway.localhost:8443" in added.stderr
    (device,) = here.read("device", "list")
    assert (device["name"], device["owner"], device["department"], device["status"]) == (
        "laptop-7", "ann", "it", "pending",
    )  # fmt: skip
    assert "laptop-7" in here.run("device", "list").stdout
    for name in (device["id"], device["id"][:8], "laptop-7"):
        assert here.read("device", "show", name)["id"] == device["id"]
    assert "laptop-7" in here.run("device", "show", "laptop-7").stdout
    assert here.run("device", "token", "laptop-7").stdout.startswith("gwe_")
    assert "is revoked" in here.run("device", "revoke", "laptop-7", "--why", "lost").stdout
    assert here.read("device", "show", "laptop-7")["revoked_why"] == "lost"
    assert here.run("device", "token", "laptop-7").exit_code == 1


def test_an_unknown_or_ambiguous_device_is_an_error(here: Site) -> None:
    assert here.run("device", "show", "x").exit_code == 1
    for _ in range(2):
        here.run("device", "add", "twin", "--owner", "ann")
    result = here.run("device", "revoke", "twin")
    assert result.exit_code == 1
    assert "whole id" in result.stderr
    assert {device["status"] for device in here.read("device", "list")} == {"pending"}


def test_text_that_cannot_be_printed_is_refused(here: Site) -> None:
    assert here.run("device", "add", "a\x07b", "--owner", "ann").exit_code == 1
    assert here.read("device", "list") == []


def test_without_an_issuing_key_nobody_is_added(here: Site) -> None:
    here.file.write_text(here.file.read_text().replace("  issuing_key: pki/device-ca.key\n", ""))
    result = here.run("device", "add", "a", "--owner", "ann")
    assert result.exit_code == 1
    assert "issuing_key" in result.stderr


def test_a_state_folder_that_others_may_write_is_an_error_in_words(here: Site) -> None:
    (here.folder / "state").chmod(0o777)
    result = here.run("device", "list")
    assert result.exit_code == 1
    assert "chmod 700" in result.stderr


def test_sessions_are_listed_shown_and_revoked(here: Site) -> None:
    async def seed() -> None:
        store = (await open_state(load(here.file, environ={}))).store
        now = time.time()
        for name in ("ann", "bob"):
            await store.put_session(
                SessionRecord(f"session-of-{name}", "https://id", name, f"{name}@corp", "", now, now, now + 600)
            )
        await store.close()

    assert here.run("session", "list").exit_code == 0
    asyncio.run(seed())
    assert {entry["subject"] for entry in here.read("session", "list")} == {"ann", "bob"}
    assert [entry["subject"] for entry in here.read("session", "list", "--subject", "ann")] == ["ann"]
    assert "ann@corp" in here.run("session", "list").stdout
    assert here.read("session", "show", "session-of-ann")["identity"] == "ann@corp"
    assert here.run("session", "show", "session-of-").exit_code == 1
    assert here.run("session", "revoke", "session-of-ann", "--why", "left").exit_code == 0
    assert here.read("session", "show", "session-of-ann")["revoked_why"] == "left"
    assert "revoked" in here.run("session", "list").stdout
    assert here.run("session", "revoke", "nobody").exit_code == 1


def test_a_session_says_what_it_is_tied_to(here: Site) -> None:
    async def seed() -> None:
        state = await open_state(load(here.file, environ={}))
        now = time.time()
        for name, device in (("l_bound", "laptop"), ("l_key", "laptop"), ("l_loose", ""), ("b_program", "laptop")):
            await state.store.put_session(SessionRecord(name, "https://id", "ann", "ann", device, now, now, now + 600))
            if name.startswith("l_"):
                await state.documents.overwrite("login_session", name, b"{}", now + 600)
        await state.documents.overwrite("session", "cookie", b"{}", now + 600, group="l_key")
        await state.documents.overwrite("dbsc", "cookie", b"{}", now + 600)
        await state.store.close()

    asyncio.run(seed())
    listed = {entry["id"]: entry["bound_by"] for entry in here.read("session", "list")}
    assert listed == {"l_bound": ["device"], "l_key": ["device", "dbsc"], "l_loose": [], "b_program": None}
    assert [entry["id"] for entry in here.read("session", "list", "--device", "nobody")] == []
    assert len(here.read("session", "list", "--device", "laptop")) == 3
    shown = here.run("session", "list").stdout
    assert "device, dbsc" in shown
    assert "nothing" in shown
    assert here.read("session", "show", "l_key")["bound_by"] == ["device", "dbsc"]


def test_the_pki_is_shown_and_its_server_certificate_and_crl_are_renewed(here: Site) -> None:
    shown = here.read("pki", "show")
    assert shown[0]["names"] == ["gateway.localhost", "app.localhost"]
    assert "CN=Gateway root CA" in here.run("pki", "show").stdout
    result = here.run("pki", "server", "--host", "a.corp", "--host", "*.b.corp", "--host", "127.0.0.1")
    assert result.exit_code == 0
    leaf = x509.load_pem_x509_certificates((here.folder / "pki/server.pem").read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["a.corp", "*.b.corp", "127.0.0.1"]
    assert here.run("pki", "crl").stdout == "the revocation list is fresh\n"
    (here.folder / "pki/crl.pem").unlink()
    assert here.run("pki", "crl").stdout == "a new revocation list was made\n"


def test_a_pki_is_made_in_a_folder_of_its_own_and_never_overwritten(tmp_path: Path) -> None:
    result = gateway("pki", "init", "--host", "gw.corp", "--dir", tmp_path / "pki")
    assert result.exit_code == 0
    assert "tls: [{certificate:" in result.stdout
    assert gateway("pki", "init", "--host", "gw.corp", "--dir", tmp_path / "pki").exit_code == 1


def test_enrolling_never_shows_the_token_and_says_what_failed(tmp_path: Path, closed_port: int) -> None:
    token = "gwe_" + "x" * 43
    url = f"https://127.0.0.1:{closed_port}"
    (tmp_path / "token").write_text(token)
    for more, stdin in (((), token + "\n"), (("--token-file", tmp_path / "token"), None)):
        result = gateway("device", "enroll", url, "--dir", tmp_path / "device", *more, stdin=stdin)
        assert result.exit_code == 1
        assert "not enrolled" in result.stderr
        assert token not in result.output
    assert gateway("device", "enroll", url, "--token-file", tmp_path / "none").exit_code == 1
    assert gateway("device", "enroll", "http://a", "--dir", tmp_path, stdin=token).exit_code == 1
    assert gateway("device", "renew", "--dir", tmp_path / "none").exit_code == 1
