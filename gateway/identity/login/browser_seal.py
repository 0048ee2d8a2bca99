"""Sealing under a secret of the browser: AES-256-GCM with a key derived from it (HKDF-SHA256, RFC 5869).

Law: what a request leaves while its sender signs in opens only with what that browser has. The store keeps such a
document under the digest of the secret; neither it nor the master key gives the secret away.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = b"\x02"
_NONCE_BYTES = 12


def seal(secret: str, purpose: str, value: bytes) -> bytes:
    """`02 | nonce 12 | ciphertext | tag 16`, bound to `purpose`."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _VERSION + nonce + _cipher(secret, purpose).encrypt(nonce, value, _VERSION)


def unseal(secret: str, purpose: str, sealed: bytes) -> bytes:
    """The value. Raises ValueError when it was sealed under another secret or purpose, or was changed.

    What a version before this one left is JSON, and as it was.
    """
    if sealed[:1] == b"{":
        return sealed
    if sealed[:1] != _VERSION:
        raise ValueError("a sealed value of an unknown format")
    nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return _cipher(secret, purpose).decrypt(nonce, body, _VERSION)
    except InvalidTag:
        raise ValueError("a sealed value does not open with this secret") from None


def _cipher(secret: str, purpose: str) -> AESGCM:
    derive = HKDF(hashes.SHA256(), length=32, salt=None, info=f"gateway/v1/browser/{purpose}".encode())
    return AESGCM(derive.derive(secret.encode()))
