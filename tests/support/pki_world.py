"""A PKI in a folder, a store, a clock that stands still, and what a device would do."""

from __future__ import annotations

import hashlib
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.adapters.sqlite.store import SqliteStore
from gateway.config import Devices as DevicesConfig
from gateway.core.ports.pipeline import Enrolled
from gateway.core.reasons import Refusal
from gateway.core.request import Peer
from gateway.identity.devices.ca_files import PkiFiles, found_pki
from gateway.identity.devices.certificates import DeviceTrust
from gateway.identity.devices.enrolment import Enrolment
from gateway.identity.devices.verifier import Devices

TRUST_DOMAIN = "gateway.internal"
UUID = "3f2a1b4c-0000-4000-8000-00000000abcd"
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
type PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class Clock:
    """Seconds since the epoch; whole, as certificates know them."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    clock: Clock
    files: PkiFiles
    config: DevicesConfig
    store: SqliteStore
    enrolment: Enrolment
    devices: Devices

    async def enrolled(self, name: str = "laptop") -> tuple[str, bytes]:
        """A device's id and its certificate."""
        record, token = await self.enrolment.create_device(name, "ada", "it")
        answer = await self.enrolment.enrol(token, csr(new_key()))
        assert isinstance(answer, Enrolled)
        return record.id, der_of(answer)

    async def verify(self, *chain: bytes) -> object:
        return await self.devices.verify(peer(*chain))


def make_world(folder: Path) -> World:
    clock = Clock()
    files = found_pki(folder / "pki", ["gateway.localhost", "127.0.0.1"], now=clock.now, crl_life_s=86_400)
    config = DevicesConfig(trust_domain=TRUST_DOMAIN, ca=files.device_ca, issuing_key=files.device_key)
    store = SqliteStore(folder / "state" / "gateway.db", bytes(32), clock)
    trust = DeviceTrust(files.device_ca.read_bytes())
    devices = Devices(store, trust, TRUST_DOMAIN, crl=files.crl, crl_max_age_s=86_400, clock=clock, monotonic=Ticks())
    return World(clock, files, config, store, Enrolment(store, config, clock), devices)


class Ticks:
    """A monotonic clock on which every look is late enough to read a changed file again."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: PrivateKey, algorithm: hashes.HashAlgorithm | None = hashes.SHA256(), **names: str) -> str:  # noqa: B008
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names.get("common_name", "device"))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if "dns" in names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(names["dns"])]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signing = None if isinstance(key, ed25519.Ed25519PrivateKey) else algorithm
    return builder.sign(key, signing).public_bytes(PEM).decode()


def der_of(answer: Enrolled) -> bytes:
    return x509.load_pem_x509_certificate(answer.certificate_pem.encode()).public_bytes(DER)


def peer(*chain: bytes) -> Peer:
    return Peer("127.0.0.1", 1, chain, sha256(chain[0]) if chain else "")


def sha256(der: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def reason_of(answer: object) -> str:
    assert isinstance(answer, Refusal), answer
    return answer.reason
