"""Sealing small secrets at rest: AES-256-GCM under a key derived from the master key.

A sealed value is `01 | nonce 12 | ciphertext | tag 16`. Purpose and name are bound as associated data, so a value moved
to another row does not open.
"""

from __future__ import annotations

import os
import secrets
import stat
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = b"\x01"
_NONCE_BYTES = 12
_MASTER_KEY_BYTES = 32


class Seal:
    """Authenticated encryption of values (AES-256-GCM). Raises ValueError for a master key that is not 32 bytes."""

    def __init__(self, master_key: bytes) -> None:
        if len(master_key) != _MASTER_KEY_BYTES:
            raise ValueError("the master key is not 32 bytes")
        derive = HKDF(hashes.SHA256(), length=32, salt=None, info=b"gateway/v1/store-secrets")
        self._cipher = AESGCM(derive.derive(master_key))

    def seal(self, purpose: str, name: str, value: bytes) -> bytes:
        """The sealed value."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, value, _context(purpose, name))

    def unseal(self, purpose: str, name: str, sealed: bytes) -> bytes:
        """The value. Raises ValueError when it was sealed under another key, name or format, or was changed."""
        if sealed[:1] != _VERSION:
            raise ValueError("a sealed value of an unknown format")
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, body, _context(purpose, name))
        except InvalidTag:
            raise ValueError("a sealed value does not open with this master key") from None


def _context(purpose: str, name: str) -> bytes:
    return _prefix(purpose) + _measured(name.encode())


@lru_cache(maxsize=256)
def _prefix(purpose: str) -> bytes:
    return _measured(b"gateway/v1/secret") + _measured(purpose.encode())


def _measured(part: bytes) -> bytes:
    return len(part).to_bytes(4) + part


def read_or_make_master_key(path: Path) -> bytes:
    """The 32 bytes in `path`; the first caller makes them (mode 0600), whoever else starts at the same time.

    Raises OSError, or ValueError for a file that others may read or that is not 32 bytes long.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _make(path)
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ValueError(f"{path} may be read by others; chmod 600 it")
        key = file.read(_MASTER_KEY_BYTES + 1)
    if len(key) != _MASTER_KEY_BYTES:
        raise ValueError(f"{path} does not hold a master key of 32 bytes")
    return key


def _make(path: Path) -> None:
    """Write a whole key beside `path`, then link it there: a link fails when another process was first."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_MASTER_KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)
