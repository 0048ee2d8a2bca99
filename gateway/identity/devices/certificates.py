"""Reading what others send: certificate requests, device certificates, the path up to our root (RFC 5280 section 6).

Law: a device certificate has exactly the profile (`certs/README.md`) or it is refused.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from gateway.core.reasons import Refusal
from gateway.identity.devices.ca import UUID, DeviceKey, common_name, key_usage, serial_hex, usages, utc

_CHAIN_LENGTH = 3  # leaf, issuing CA, root
_CSR_LIMIT_BYTES = 16_384
_CERTIFICATE_LIMIT_BYTES = 16_384
_RSA_BITS = range(2048, 8193)
# Every extension of the profile, and whether it is critical.
_PROFILE = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.EXTENDED_KEY_USAGE: False,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
}
_NO_CA = x509.BasicConstraints(ca=False, path_length=None)
_CONTEXT_CLASS, _TAG_NUMBER, _UNIQUE_IDS = 0x80, 0x1F, (1, 2)
_SERIAL_BITS = 159  # RFC 5280 section 4.1.2.2: at most 20 octets
_LEAST_EXPONENT = 65_537
# KeyError: a name in a string type of old. Warning: what a later release refuses, where warnings are errors.
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    Warning,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
)


@dataclass(frozen=True, slots=True)
class ClaimedDevice:
    """What a certificate of the right profile says; its signature, validity and standing are still unchecked.

    `serial` is 32 digits of lower-case hex, `cert_sha256` the base64url SHA-256 of the DER (RFC 8705 section 3.1).
    """

    id: str
    serial: str
    not_before: float
    not_after: float
    cert_sha256: str
    certificate: x509.Certificate = field(repr=False)


def read_csr(pem: str) -> DeviceKey | Refusal:
    """The public key of a PKCS#10 request whose proof of possession verifies, or `csr_malformed`.

    Only P-256, P-384, Ed25519, and RSA of 2048 to 8192 bits. Names and extensions of the request are ignored.
    """
    if len(pem) > _CSR_LIMIT_BYTES or not pem.isascii():
        return Refusal("csr_malformed", "size or characters")
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        algorithm = request.signature_hash_algorithm
        if algorithm is not None and not isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
            return Refusal("csr_malformed", "signature algorithm")
        key = _device_key(request.public_key())
        if key is None:
            return Refusal("csr_malformed", "kind of key")
        return key if request.is_signature_valid else Refusal("csr_malformed", "proof of possession")
    except UNREADABLE as error:
        return Refusal("csr_malformed", type(error).__name__)


def parse_device_certificate(der: bytes, trust_domain: str) -> ClaimedDevice | Refusal:
    """A certificate's claims when it has exactly the profile of a device certificate, else `certificate_malformed`."""
    if len(der) > _CERTIFICATE_LIMIT_BYTES:
        return Refusal("certificate_malformed", "size")
    try:
        certificate = x509.load_der_x509_certificate(der)
        flaw = "signature" if not der.endswith(b"\0" + certificate.signature) else _flaw(certificate, trust_domain)
        if flaw is not None:
            return Refusal("certificate_malformed", flaw)
        return ClaimedDevice(
            id=str(certificate.subject.rdns[0].get_attributes_for_oid(NameOID.COMMON_NAME)[0].value),
            serial=serial_hex(certificate.serial_number),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            cert_sha256=base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode("ascii"),
            certificate=certificate,
        )
    except UNREADABLE as error:
        return Refusal("certificate_malformed", type(error).__name__)


def _flaw(certificate: x509.Certificate, trust_domain: str) -> str | None:
    """In which way a certificate departs from the profile, None when it does not."""
    if certificate.version is not x509.Version.v3 or has_unique_id(certificate.tbs_certificate_bytes):
        return "version"
    if certificate.serial_number <= 0 or certificate.serial_number.bit_length() > _SERIAL_BITS:
        return "serialNumber"
    if certificate.not_valid_before_utc > certificate.not_valid_after_utc:
        return "validity"
    extensions = certificate.extensions
    if {extension.oid: extension.critical for extension in extensions} != _PROFILE:
        return "extensions"
    if extensions.get_extension_for_class(x509.BasicConstraints).value != _NO_CA:
        return "basicConstraints"
    if extensions.get_extension_for_class(x509.KeyUsage).value != key_usage(digital_signature=True):
        return "keyUsage"
    if usages(certificate) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        return "extendedKeyUsage"
    own = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    if extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value != own:
        return "subjectKeyIdentifier"
    authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    if not authority.key_identifier or authority.authority_cert_issuer or authority.authority_cert_serial_number:
        return "authorityKeyIdentifier"
    names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        return "subjectAltName"
    found = re.fullmatch(rf"spiffe://{re.escape(trust_domain)}/device/({UUID})", names[0].value)
    if found is None:
        return "subjectAltName"
    if certificate.subject.public_bytes() != common_name(found[1]).public_bytes():
        return "subject"
    return None if _device_key(certificate.public_key()) is not None else "public key"


def _device_key(key: object) -> DeviceKey | None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1) else None
    if isinstance(key, rsa.RSAPublicKey):
        exponent = key.public_numbers().e
        return key if key.key_size in _RSA_BITS and exponent >= _LEAST_EXPONENT and exponent % 2 else None
    return key if isinstance(key, ed25519.Ed25519PublicKey) else None


def has_unique_id(tbs: bytes) -> bool:
    """Whether a TBSCertificate (DER) has an issuerUniqueID or subjectUniqueID, which RFC 5280 forbids CAs to write."""
    tags = []
    rest = _content(tbs)[0]
    while rest:
        tags.append(rest[0])
        rest = _content(rest)[1]
    return any(tag & _TAG_NUMBER in _UNIQUE_IDS for tag in tags if tag & _CONTEXT_CLASS)


def _content(der: bytes) -> tuple[bytes, bytes]:
    """The content of the first DER element, and what follows it. Raises ValueError for what is cut off."""
    if len(der) < 2:  # noqa: PLR2004
        raise ValueError("DER")
    size, start = der[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[2:start])
    if start + size > len(der):
        raise ValueError("DER")
    return der[start : start + size], der[start + size :]


@dataclass(frozen=True, slots=True)
class VerifiedPath:
    """A verified certification path: its issuing CA, and the time in which leaf, issuing CA and root are all valid."""

    issuing: x509.Certificate
    not_before: float
    not_after: float


class DeviceTrust:
    """The root and issuing CAs whose device certificates are accepted, from a PEM bundle of both.

    During the change of an issuing CA the bundle holds the new one and the old. Raises ValueError when a root or a
    device-issuing CA below it is missing.
    """

    def __init__(self, pem: bytes) -> None:
        certificates = x509.load_pem_x509_certificates(pem)
        self.roots = [one for one in certificates if one.subject == one.issuer]
        self.issuing = [
            one for one in certificates if one not in self.roots and usages(one) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        ]
        if not self.roots or not self.issuing:
            raise ValueError("the device CA file needs a root and an issuing CA for devices")
        for one in self.issuing:
            if not any(_signed_by(one, root) for root in self.roots):
                raise ValueError("an issuing CA in the device CA file is not signed by a root in it")
        self._store = Store(self.roots)

    def verify(self, leaf: x509.Certificate, now: float) -> VerifiedPath | Refusal:
        """The path from the leaf over an issuing CA to a root; `certificate_malformed` without one.

        Only our own issuing CAs are considered, never certificates that the peer sent along.
        """
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(utc(now))
            .max_chain_depth(1)
            .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
            .build_client_verifier()
        )
        try:
            chain = verifier.verify(leaf, self.issuing).chain
        except VerificationError as error:
            return Refusal("certificate_malformed", f"no path to the device root: {str(error)[:120]}")
        if len(chain) != _CHAIN_LENGTH:
            return Refusal("certificate_malformed", "not issued by the issuing CA")
        if not _names_key_of(leaf, chain[1]):
            return Refusal("certificate_malformed", "authorityKeyIdentifier")
        return VerifiedPath(
            chain[1],
            max(one.not_valid_before_utc.timestamp() for one in chain),
            min(one.not_valid_after_utc.timestamp() for one in chain),
        )


def _names_key_of(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the leaf's authority key identifier is the subject key identifier of its issuer."""
    try:
        wanted = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        return leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == wanted
    except x509.ExtensionNotFound:
        return False


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _only_client_auth(_policy: Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if usage is not None and list(usage) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        raise ValueError("extendedKeyUsage is not clientAuth alone")


def _no_authority(_policy: Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if constraints.ca:
        raise ValueError("the leaf is a CA")


_LEAF_POLICY = (
    ExtensionPolicy.webpki_defaults_ee()
    .require_present(x509.BasicConstraints, Criticality.CRITICAL, _no_authority)
    .require_present(x509.KeyUsage, Criticality.CRITICAL, None)
    .require_present(x509.SubjectAlternativeName, Criticality.NON_CRITICAL, None)
    .require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _only_client_auth)
)
_CA_POLICY = ExtensionPolicy.webpki_defaults_ca().may_be_present(
    x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _only_client_auth
)
