from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from gateway.identity.devices.ca_files import PkiFiles, found_pki, load_authority, renew_server, write_file
from gateway.identity.devices.certificates import Crl, DeviceTrust, load_crl
from tests.support.pki_world import Clock

NOW = Clock()()


@pytest.fixture
def files(tmp_path: Path) -> PkiFiles:
    return found_pki(tmp_path / "pki", ["gateway.localhost"], now=NOW, crl_life_s=3600)


def test_a_founded_pki_is_complete_and_its_keys_are_private(files: PkiFiles) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files.folder.iterdir()}
    keys = {"root.key", "device-ca.key", "server-ca.key", "server.key"}
    assert {name for name, mode in modes.items() if mode == 0o600} == keys
    public = {"root.pem", "device-ca.pem", "server-ca.pem", "server.pem", "crl.pem"}
    assert {name for name, mode in modes.items() if mode == 0o644} == public
    trust = DeviceTrust(files.device_ca.read_bytes())
    assert isinstance(load_crl(files.crl.read_bytes(), trust.issuing, NOW, 3600), Crl)
    load_authority(files.root, files.root_key)
    load_authority(files.device_ca, files.device_key)


def test_a_root_is_never_overwritten(files: PkiFiles) -> None:
    before = files.root.read_bytes()
    with pytest.raises(FileExistsError):
        found_pki(files.folder, ["x"], now=NOW, crl_life_s=3600)
    assert files.root.read_bytes() == before


def test_a_server_certificate_is_renewed_with_a_new_key(files: PkiFiles) -> None:
    key, chain = files.server_key.read_bytes(), files.server.read_bytes()
    renew_server(files, ["gateway.localhost", "wiki.example"], now=NOW)
    assert files.server_key.read_bytes() != key
    assert files.server.read_bytes() != chain
    leaf = x509.load_pem_x509_certificates(files.server.read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gateway.localhost", "wiki.example"]


def test_a_key_that_others_may_read_is_refused(files: PkiFiles) -> None:
    files.device_key.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        load_authority(files.device_ca, files.device_key)


def test_a_key_of_another_certificate_is_refused(files: PkiFiles) -> None:
    with pytest.raises(ValueError, match="no elliptic curve key"):
        load_authority(files.device_ca, files.server_ca_key)


def test_a_file_is_replaced_in_one_step_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"one", 0o600)
    reader = path.open("rb")
    write_file(path, b"two", 0o644)
    assert reader.read() == b"one"
    reader.close()
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_file(tmp_path / "folder", b"x", 0o600)
    assert [found.name for found in tmp_path.iterdir()] == ["folder"]
