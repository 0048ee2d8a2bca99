"""Certificate revocation lists (RFC 5280 section 5): read, verified, each good for its issuer alone.

Law: a list counts for the certificates of the CA whose key signed it, and for no others. A file may hold several; of
those of one issuer the newest counts. No list, a stale one, one that speaks for a part of its certificates only, or one
with an extension that is not known here: every device of that issuer is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from gateway.core.reasons import Refusal
from gateway.identity.devices.ca import public_key_sha256, serial_hex
from gateway.identity.devices.certificates import UNREADABLE

_SKEW_S = 60.0  # between the clock that signed a list and ours
_PEM = re.compile(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----")
_BEGIN = b"-----BEGIN X509 CRL-----"
_KNOWN = frozenset({ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER})
# Of one revoked certificate: why, and since when its key was not to be trusted. Neither changes that it is revoked.
_KNOWN_OF_ENTRY = frozenset({CRLEntryExtensionOID.CRL_REASON, CRLEntryExtensionOID.INVALIDITY_DATE})
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


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

    def refusal(self, now: float, max_age_s: float) -> Refusal | None:
        """`crl_stale` for a list that may not be relied on any more."""
        return None if self.is_fresh(now, max_age_s) else Refusal("crl_stale", "the CRL is out of date")


def issuer_id(authority: x509.Certificate) -> str:
    """What an issuing CA is known by: the hex SHA-256 of its public key. Names may repeat, keys do not."""
    return public_key_sha256(authority.public_key())  # type: ignore[arg-type]


def pem_blocks(pem: bytes) -> list[bytes] | None:
    """Each list of a file on its own; None for a file in which one is cut off."""
    blocks = _PEM.findall(pem)
    return blocks if len(blocks) == pem.count(_BEGIN) else None


def read_crls(pem: bytes, issuing: Sequence[x509.Certificate]) -> Mapping[str, Crl] | Refusal:
    """The lists of a PEM file by `issuer_id`, of whatever age; `crl_stale` when one of ours cannot be relied on.

    Lists of CAs that are not among `issuing` are passed over; a file with no other is refused.
    """
    blocks = pem_blocks(pem)
    if not blocks:
        return Refusal("crl_stale", "the CRL file holds no list, or a part of one")
    lists: dict[str, Crl] = {}
    for block in blocks:
        read = read_crl(block, issuing)
        if isinstance(read, Refusal):
            return read
        if read is not None:
            issuer, crl = read
            present = lists.get(issuer)
            if present is None or (present.number, present.this_update) < (crl.number, crl.this_update):
                lists[issuer] = crl
    return lists or Refusal("crl_stale", "the CRL is not signed by an issuing CA of ours")


def read_crl(pem: bytes, issuing: Sequence[x509.Certificate]) -> tuple[str, Crl] | None | Refusal:
    """One list and its `issuer_id`, of whatever age; None for that of an issuer that is not ours."""
    try:
        listed = x509.load_pem_x509_crl(pem)
        named = [authority for authority in issuing if authority.subject == listed.issuer]
        if not named:
            return None
        authority = next((one for one in named if _is_signed_by(listed, one)), None)
        if authority is None:
            return Refusal("crl_stale", "the CRL is not signed by an issuing CA of ours")
        if (flaw := _issuer_flaw(authority) or _flaw(listed, authority)) is not None:
            return Refusal("crl_stale", flaw)
        next_update = listed.next_update_utc
        if next_update is None:
            return Refusal("crl_stale", "the CRL has no nextUpdate")
        return issuer_id(authority), Crl(
            number=listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number,
            this_update=listed.last_update_utc.timestamp(),
            next_update=next_update.timestamp(),
            serials=frozenset(serial_hex(entry.serial_number) for entry in listed),
        )
    except UNREADABLE as error:
        return Refusal("crl_stale", f"the CRL cannot be read: {type(error).__name__}")


def _is_signed_by(listed: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        return listed.is_signature_valid(key)
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return False
    return isinstance(listed.signature_hash_algorithm, _HASHES) and listed.is_signature_valid(key)


def _issuer_flaw(authority: x509.Certificate) -> str | None:
    """Why a CA may not sign lists, None when it may (RFC 5280 sections 4.2.1.3 and 6.3.3)."""
    try:
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return "the CRL's issuer is no CA that may sign lists"
    return None if constraints.ca and usage.crl_sign else "the CRL's issuer may not sign lists (cRLSign)"


def _flaw(listed: x509.CertificateRevocationList, authority: x509.Certificate) -> str | None:
    """What makes a list mean something else than "these are revoked, the others are not"; None without it."""
    for extension in listed.extensions:
        if extension.oid not in _KNOWN:
            return "the CRL has an extension that narrows its meaning"
        if isinstance(extension.value, x509.AuthorityKeyIdentifier) and not _names(extension.value, authority):
            return "the CRL names another key than its issuer's"
    for entry in listed:
        for extension in entry.extensions:
            if extension.oid not in _KNOWN_OF_ENTRY:
                return "an entry of the CRL has an extension that is not known here"
            if isinstance(extension.value, x509.CRLReason) and (
                extension.value.reason is x509.ReasonFlags.remove_from_crl
            ):
                return "the CRL takes a certificate off another list"
    return None


def _names(identifier: x509.AuthorityKeyIdentifier, authority: x509.Certificate) -> bool:
    """Whether a list's authority key identifier is that of `authority` (one that says no key says nothing)."""
    if identifier.key_identifier is None:
        return True
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return True
    return identifier.key_identifier == own.digest
