"""Reading what others send: certificate requests, device certificates, the way up to our root, the revoked ones.

Law: a device certificate has exactly the profile (`certs/README.md`) or it is refused. No list, a stale one, or one
that no issuing CA of ours signed refuses every device.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
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
_SKEW_S = 60.0  # between the clock that signed a list and ours
_CSR_LIMIT_BYTES = 16_384
_CERTIFICATE_LIMIT_BYTES = 16_384
_RSA_BITS = range(2048, 8193)
_PROFILE = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}
# KeyError: a name in a string type of old. Warning: what a later release refuses, where warnings are errors.
_UNREADABLE = (
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
    except _UNREADABLE as error:
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
    except _UNREADABLE as error:
        return Refusal("certificate_malformed", type(error).__name__)


def _flaw(certificate: x509.Certificate, trust_domain: str) -> str | None:
    """In which way a certificate departs from the profile, None when it does not."""
    if certificate.serial_number <= 0:
        return "serialNumber"
    extensions = certificate.extensions
    if {extension.oid for extension in extensions} != _PROFILE:
        return "extensions"
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    if not constraints.critical or constraints.value.ca:
        return "basicConstraints"
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    if not usage.critical or usage.value != key_usage(digital_signature=True):
        return "keyUsage"
    if usages(certificate) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        return "extendedKeyUsage"
    names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        return "subjectAltName"
    found = re.fullmatch(rf"spiffe://{re.escape(trust_domain)}/device/({UUID})", names[0].value)
    if found is None:
        return "subjectAltName"
    if certificate.subject != common_name(found[1]):
        return "subject"
    return None if _device_key(certificate.public_key()) is not None else "public key"


def _device_key(key: object) -> DeviceKey | None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1) else None
    if isinstance(key, rsa.RSAPublicKey):
        return key if key.key_size in _RSA_BITS else None
    return key if isinstance(key, ed25519.Ed25519PublicKey) else None


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

    def verify(self, leaf: x509.Certificate, now: float) -> tuple[float, float] | Refusal:
        """The window of time in which leaf, issuing CA and root are all valid; `certificate_malformed` without a path.

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
        return (
            max(one.not_valid_before_utc.timestamp() for one in chain),
            min(one.not_valid_after_utc.timestamp() for one in chain),
        )


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


@dataclass(frozen=True, slots=True)
class Crl:
    """A verified list of revoked certificates. Times are seconds since the epoch, serials lower-case hex."""

    number: int
    this_update: float
    next_update: float
    serials: frozenset[str]

    def is_fresh(self, now: float, max_age_s: float) -> bool:
        """Whether the list may still be relied on."""
        return self.this_update - _SKEW_S <= now < self.next_update and now - self.this_update <= max_age_s


def load_crl(pem: bytes, issuing: Sequence[x509.Certificate], now: float, max_age_s: float) -> Crl | Refusal:
    """A fresh CRL that one of our issuing CAs signed, else `crl_stale`."""
    crl = read_crl(pem, issuing)
    if isinstance(crl, Refusal) or crl.is_fresh(now, max_age_s):
        return crl
    return Refusal("crl_stale", "the CRL is out of date")


def read_crl(pem: bytes, issuing: Sequence[x509.Certificate]) -> Crl | Refusal:
    """A CRL that one of our issuing CAs signed, of whatever age, else `crl_stale`."""
    try:
        listed = x509.load_pem_x509_crl(pem)
        if not any(_crl_signed_by(listed, authority) for authority in issuing):
            return Refusal("crl_stale", "the CRL is not signed by an issuing CA of ours")
        known = {ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
        if any(extension.oid not in known for extension in listed.extensions):
            return Refusal("crl_stale", "the CRL has an extension that narrows its meaning")
        if listed.next_update_utc is None:
            return Refusal("crl_stale", "the CRL has no nextUpdate")
        return Crl(
            number=listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number,
            this_update=listed.last_update_utc.timestamp(),
            next_update=listed.next_update_utc.timestamp(),
            serials=frozenset(serial_hex(entry.serial_number) for entry in listed),
        )
    except _UNREADABLE as error:
        return Refusal("crl_stale", f"the CRL cannot be read: {type(error).__name__}")


def _crl_signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    return (
        crl.issuer == authority.subject
        and isinstance(crl.signature_hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512)
        and isinstance(key, ec.EllipticCurvePublicKey)
        and crl.is_signature_valid(key)
    )
