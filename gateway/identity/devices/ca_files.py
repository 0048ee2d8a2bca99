"""The PKI's files: founding it in a folder, reading a CA with its key, replacing a file in one step.

Private keys are PEM files of mode 0600. `certs/README.md` says which file is which and which one goes offline.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.identity.devices.ca import (
    SERVER_LIFE_S,
    Authority,
    issue_crl,
    issue_server,
    make_issuing,
    make_root,
    pem_of,
)

_PRIVATE, _PUBLIC = 0o600, 0o644


@dataclass(frozen=True, slots=True)
class PkiFiles:
    """Where the parts of a PKI stand in its folder; `devices.ca` is `device_ca`, `devices.issuing_key` `device_key`."""

    folder: Path

    @property
    def root(self) -> Path:
        """The root certificate."""
        return self.folder / "root.pem"

    @property
    def root_key(self) -> Path:
        """The root's key: it belongs offline."""
        return self.folder / "root.key"

    @property
    def device_ca(self) -> Path:
        """The CA that issues device certificates, then the root."""
        return self.folder / "device-ca.pem"

    @property
    def device_key(self) -> Path:
        """Its key."""
        return self.folder / "device-ca.key"

    @property
    def crl(self) -> Path:
        """The list of revoked device certificates."""
        return self.folder / "crl.pem"

    @property
    def server_ca(self) -> Path:
        """The CA that issues server certificates, then the root."""
        return self.folder / "server-ca.pem"

    @property
    def server_ca_key(self) -> Path:
        """Its key."""
        return self.folder / "server-ca.key"

    @property
    def server(self) -> Path:
        """The gateway's server certificate, then its issuing CA."""
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        """Its key."""
        return self.folder / "server.key"


def found_pki(folder: Path, hosts: Sequence[str], *, now: float, crl_life_s: float) -> PkiFiles:
    """Make a whole PKI: root, both issuing CAs, a server certificate for `hosts`, an empty CRL.

    Raises FileExistsError when the folder holds a root already, before anything is written.
    """
    files = PkiFiles(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if files.root.exists() or files.root_key.exists():
        raise FileExistsError(f"{folder} holds a root CA already")
    root = make_root("Gateway root CA", now)
    devices = make_issuing(root, "Gateway device CA", "device", now)
    servers = make_issuing(root, "Gateway server CA", "server", now)
    for path, authority in (
        (files.root_key, root),
        (files.device_key, devices),
        (files.server_ca_key, servers),
    ):
        write_file(path, key_pem(authority.key), _PRIVATE)
    write_file(files.device_ca, pem_of(devices.certificate, root.certificate), _PUBLIC)
    write_file(files.server_ca, pem_of(servers.certificate, root.certificate), _PUBLIC)
    write_file(files.crl, issue_crl(devices, (), number=int(now * 1000), now=now, life_s=crl_life_s), _PUBLIC)
    renew_server(files, hosts, now=now)
    write_file(files.root, pem_of(root.certificate), _PUBLIC)
    return files


def renew_server(files: PkiFiles, hosts: Sequence[str], *, now: float, life_s: float = SERVER_LIFE_S) -> None:
    """Give the gateway a new server certificate with a new key."""
    issuing = load_authority(files.server_ca, files.server_ca_key)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = issue_server(issuing, key.public_key(), hosts, now=now, life_s=life_s)
    write_file(files.server_key, key_pem(key), _PRIVATE)
    write_file(files.server, pem_of(leaf, issuing.certificate), _PUBLIC)


def load_authority(certificates: Path, key: Path) -> Authority:
    """The CA among `certificates` (PEM) that `key` belongs to.

    Raises OSError, or ValueError for a key file that others may read or that fits none of the certificates.
    """
    if stat.S_IMODE(key.stat().st_mode) & 0o077:
        raise ValueError(f"{key} may be read by others; chmod 600 it")
    loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
    for certificate in x509.load_pem_x509_certificates(certificates.read_bytes()):
        if isinstance(loaded, ec.EllipticCurvePrivateKey) and certificate.public_key() == loaded.public_key():
            return Authority(certificate, loaded)
    raise ValueError(f"{key} is no elliptic curve key of a certificate in {certificates}")


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PKCS#8 PEM without a password, for a file of mode 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Replace a file in one step, durably: a reader sees the old content or the new, never a part. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
