"""`gateway pki`, on a real PKI."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from tests.support.cli_world import Site, gateway


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
