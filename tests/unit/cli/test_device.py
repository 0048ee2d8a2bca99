"""`gateway device`, on a real store and a real PKI."""

from __future__ import annotations

from pathlib import Path

from tests.support.cli_world import Site, gateway


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
