"""What the device PKI issues: authorities, device and server certificates, the list of revoked ones (RFC 5280).

Law: whoever asks for a certificate contributes a public key and nothing else. All times are seconds
since the epoch. `certs/README.md` explains the hierarchy.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

type DeviceKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
Use = Literal["device", "server"]

ROOT_LIFE_S = 10 * 365 * 86_400
ISSUING_LIFE_S = 2 * 365 * 86_400
SERVER_LIFE_S = 90 * 86_400
BACKDATED_S = 60  # for peers whose clock is a little behind

_EKU = {"device": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)


def serial_hex(serial: int) -> str:
    """A serial number as the store keeps it."""
    return f"{serial:032x}"


def public_key_sha256(key: DeviceKey) -> str:
    """The hex SHA-256 of a SubjectPublicKeyInfo."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def pem_of(*certificates: x509.Certificate) -> bytes:
    """Certificates as PEM."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def make_root(name: str, now: float) -> Authority:
    """A self-signed root: P-384, ten years, at most one CA below it."""
    key = ec.generate_private_key(ec.SECP384R1())
    builder = _builder(common_name(name), common_name(name), key.public_key(), now, now + ROOT_LIFE_S)
    return Authority(_sign(_as_authority(builder, key.public_key(), path_length=1), key, hashes.SHA384()), key)


def make_issuing(root: Authority, name: str, use: Use, now: float) -> Authority:
    """An issuing CA (P-256, two years) whose EKU lets it sign certificates of one use only.

    That of devices may not name any host either (name constraints), so that no verifier takes its leaves for servers.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(now + ISSUING_LIFE_S, root.certificate.not_valid_after_utc.timestamp())
    builder = _as_authority(
        _builder(common_name(name), root.certificate.subject, key.public_key(), now, until),
        key.public_key(),
        path_length=0,
    )
    builder = builder.add_extension(x509.ExtendedKeyUsage([_EKU[use]]), critical=False)
    builder = builder.add_extension(_authority_identifier(root.certificate), critical=False)
    if use == "device":
        builder = builder.add_extension(_no_hosts(), critical=True)
    return Authority(_sign(builder, root.key, hashes.SHA384()), key)


def issue_device(
    issuing: Authority, key: DeviceKey, device_id: str, trust_domain: str, *, now: float, life_s: float
) -> x509.Certificate:
    """A device certificate of the profile. Raises ValueError for a CA of another use or an id that is no UUID."""
    if not re.fullmatch(UUID, device_id):
        raise ValueError("a device id is a lower-case UUID")
    uri = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}/device/{device_id}")
    return _issue(issuing, key, "device", subject=device_id, names=[uri], now=now, life_s=life_s)


def issue_server(
    issuing: Authority,
    key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    *,
    now: float,
    life_s: float = SERVER_LIFE_S,
) -> x509.Certificate:
    """A server certificate for host names and addresses. Raises ValueError for none, or for a CA of another use."""
    if not names:
        raise ValueError("a server certificate needs a name")
    hosts = [_host(name) for name in names]
    return _issue(issuing, key, "server", subject=names[0][:64], names=hosts, now=now, life_s=life_s)


def issue_crl(
    issuing: Authority, revoked: Iterable[tuple[str, float]], *, number: int, now: float, life_s: float
) -> bytes:
    """A CRL (PEM, RFC 5280 section 5) of (hex serial, time of revocation); `number` must grow from one to the next."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuing.certificate.subject)
        .last_update(utc(now))
        .next_update(utc(now + life_s))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_identifier(issuing.certificate), critical=False)
    )
    for serial, revoked_at in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(utc(revoked_at))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuing.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _issue(
    issuing: Authority,
    key: DeviceKey,
    use: Use,
    *,
    subject: str,
    names: Iterable[x509.GeneralName],
    now: float,
    life_s: float,
) -> x509.Certificate:
    if usages(issuing.certificate) != [_EKU[use]]:
        raise ValueError(f"this CA may not issue {use} certificates")
    until = min(now + life_s, issuing.certificate.not_valid_after_utc.timestamp())
    return _sign(
        _builder(common_name(subject), issuing.certificate.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_EKU[use]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority_identifier(issuing.certificate), critical=False),
        issuing.key,
        hashes.SHA256(),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: DeviceKey, now: float, until: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(secrets.randbits(128) or 1)
        .not_valid_before(utc(now - BACKDATED_S))
        .not_valid_after(utc(until))
    )


def _as_authority(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey, path_length: int
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _sign(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, algorithm: hashes.SHA256 | hashes.SHA384
) -> x509.Certificate:
    return builder.sign(key, algorithm)


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def key_usage(*, digital_signature: bool = False, ca: bool = False) -> x509.KeyUsage:
    """The key usage of a leaf (digitalSignature) or of a CA (keyCertSign, cRLSign)."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _no_hosts() -> x509.NameConstraints:
    every_address = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    return x509.NameConstraints(
        permitted_subtrees=None,
        excluded_subtrees=[x509.DNSName(""), *(x509.IPAddress(network) for network in every_address)],
    )


def common_name(text: str) -> x509.Name:
    """A distinguished name with nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return x509.DNSName(name)


def utc(seconds: float) -> dt.datetime:
    """The whole second that X.509 can say."""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC)


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    """The extended key usages of a certificate, empty without the extension."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []
