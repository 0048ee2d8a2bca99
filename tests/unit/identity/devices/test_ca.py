from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.identity.devices.ca import Authority, issue_device, issue_server, make_issuing, make_root, pem_of, usages
from gateway.identity.devices.certificates import DeviceTrust, read_csr
from tests.support.pki_world import TRUST_DOMAIN, UUID, Clock, PrivateKey, csr, new_key

NOW = Clock()()
ROOT = make_root("root", NOW)
DEVICES = make_issuing(ROOT, "devices", "device", NOW)
SERVERS = make_issuing(ROOT, "servers", "server", NOW)


def device_certificate(issuing: Authority = DEVICES, life_s: float = 86_400) -> x509.Certificate:
    return issue_device(issuing, new_key().public_key(), UUID, TRUST_DOMAIN, now=NOW, life_s=life_s)


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="a second opinion needs the openssl command")


def openssl(folder: Path, purpose: str, leaf: x509.Certificate, issuing: Authority) -> bool:
    for name, certificates in (("root", [ROOT.certificate]), ("between", [issuing.certificate]), ("leaf", [leaf])):
        (folder / f"{name}.pem").write_bytes(pem_of(*certificates))
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", folder / "root.pem"]
    done = subprocess.run([*command, "-untrusted", folder / "between.pem", folder / "leaf.pem"], check=False)
    return done.returncode == 0


def lifetime(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp() - NOW


def test_the_authorities_have_their_profiles() -> None:
    for authority, length, use, years in (
        (ROOT, 1, [], 10),
        (DEVICES, 0, [ExtendedKeyUsageOID.CLIENT_AUTH], 2),
        (SERVERS, 0, [ExtendedKeyUsageOID.SERVER_AUTH], 2),
    ):
        extensions = authority.certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=length)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert usage.value.crl_sign
        assert not usage.value.digital_signature
        assert usages(authority.certificate) == use
        assert lifetime(authority.certificate) == years * 365 * 86_400


def test_a_device_certificate_has_the_profile() -> None:
    certificate = device_certificate()
    extensions = {extension.oid: extension for extension in certificate.extensions}
    assert len(extensions) == 6
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature, usage.value.key_agreement) == (True, True, False)
    assert usages(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(f"spiffe://gateway.internal/device/{UUID}")]
    assert certificate.subject.rfc4514_string() == f"CN={UUID}"
    assert lifetime(certificate) == 86_400


def test_serials_are_random_numbers_of_128_bits() -> None:
    serials = {device_certificate().serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(0 < serial < 1 << 128 for serial in serials)
    assert max(serials) > 1 << 120


def test_no_leaf_outlives_its_authority() -> None:
    assert lifetime(device_certificate(life_s=1e9)) == lifetime(DEVICES.certificate)


def test_an_authority_of_one_use_cannot_issue_for_the_other() -> None:
    with pytest.raises(ValueError, match="may not issue device"):
        device_certificate(SERVERS)
    with pytest.raises(ValueError, match="may not issue device"):
        device_certificate(ROOT)
    with pytest.raises(ValueError, match="may not issue server"):
        issue_server(DEVICES, new_key().public_key(), ["a.example"], now=NOW)


@pytest.mark.parametrize("device_id", ["", "laptop", UUID.upper(), f"{UUID}/../x", f"{UUID}\n"])
def test_a_device_id_is_a_uuid(device_id: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        issue_device(DEVICES, new_key().public_key(), device_id, TRUST_DOMAIN, now=NOW, life_s=60)


def test_a_server_certificate_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        issue_server(SERVERS, new_key().public_key(), [], now=NOW)


@needs_openssl
def test_openssl_agrees_about_who_may_do_what(tmp_path: Path) -> None:
    server = issue_server(SERVERS, new_key().public_key(), ["gateway.localhost", "127.0.0.1", "[::1]"], now=NOW)
    assert openssl(tmp_path, "sslclient", device_certificate(), DEVICES)
    assert openssl(tmp_path, "sslserver", server, SERVERS)
    assert not openssl(tmp_path, "sslserver", device_certificate(), DEVICES)
    assert not openssl(tmp_path, "sslclient", server, SERVERS)


@needs_openssl
def test_the_device_authority_cannot_name_a_host_even_with_a_stolen_key(tmp_path: Path) -> None:
    def forged(names: Iterable[x509.GeneralName]) -> x509.Certificate:
        genuine = device_certificate()
        builder = x509.CertificateBuilder(
            DEVICES.certificate.subject,
            genuine.subject,
            genuine.public_key(),
            genuine.serial_number,
            genuine.not_valid_before_utc,
            genuine.not_valid_after_utc,
        )
        for extension in genuine.extensions:
            value = extension.value
            if isinstance(value, x509.SubjectAlternativeName):
                value = x509.SubjectAlternativeName(names)
            builder = builder.add_extension(value, critical=extension.critical)
        return builder.sign(DEVICES.key, x509.load_pem_x509_certificate(pem_of(genuine)).signature_hash_algorithm)

    uri = x509.UniformResourceIdentifier(f"spiffe://gateway.internal/device/{UUID}")
    assert openssl(tmp_path, "sslclient", forged([uri]), DEVICES)
    assert not openssl(tmp_path, "sslclient", forged([x509.DNSName("bank.example")]), DEVICES)


def test_an_authority_does_not_show_its_key() -> None:
    assert "key" not in repr(DEVICES).replace("key_", "")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65_537, 2048),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA-2048"],
)
def test_of_a_request_only_the_key_is_taken(key: PrivateKey) -> None:
    public = read_csr(csr(key, common_name="root", dns="bank.example"))
    assert public == key.public_key()
    certificate = issue_device(DEVICES, key.public_key(), UUID, TRUST_DOMAIN, now=NOW, life_s=60)
    assert certificate.subject.rfc4514_string() == f"CN={UUID}"
    trust = DeviceTrust(pem_of(DEVICES.certificate, ROOT.certificate))
    assert trust.verify(certificate, NOW) == (NOW - 60, NOW + 60)
