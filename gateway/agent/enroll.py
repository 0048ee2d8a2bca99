"""The device's side of enrolment: the key is made here, and only its public half leaves.

A folder holds `device.key`, `device.pem` (leaf, then chain), `gateway.json` and, unless the system trusts the gateway's
server certificate, `ca.pem`. The first two are links into `current`, a
link to the folder of one generation; a renewal writes a whole new generation and then turns that one link, so a crash
at any moment leaves a key and a certificate that belong together.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.identity.devices.ca_files import key_pem, write_file

ENROL_PATH, RENEW_PATH = "/.gateway/enrol", "/.gateway/renew"
_TIMEOUT_S = 20.0
_RENEW_AFTER = 2 / 3
_ANSWER_LIMIT_BYTES = 65_536


class EnrolmentFailed(Exception):
    """The gateway did not give a certificate; the text says why and holds no secret, `fix` what would help."""

    def __init__(self, message: str, fix: str = "Ask the operator for a new token.") -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class EnrolledDevice:
    """What stands in a device's folder now. Times are seconds since the epoch."""

    device_id: str
    certificate: Path
    key: Path
    ca: Path | None
    not_after: float


def enrol(gateway_url: str, token: str, directory: Path, ca_file: Path | None = None) -> EnrolledDevice:
    """Make a key and have the gateway certify it. `ca_file`: the CA of its server certificate, else the system's.

    Raises EnrolmentFailed when the gateway says no or cannot be asked, OSError for the folder, ValueError for a URL
    that is not https.
    """
    url = _origin(gateway_url)
    trust = None if ca_file is None else ca_file.read_bytes()
    key = ec.generate_private_key(ec.SECP256R1())
    context = _context(ca_file)
    # Before the token is spent.
    is_new = not directory.exists()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} cannot be written")
    try:
        answer = _post(url + ENROL_PATH, {"token": token, "csr": _csr(key)}, context)
    except EnrolmentFailed:
        if is_new:
            directory.rmdir()
        raise
    if trust is None:
        (directory / "ca.pem").unlink(missing_ok=True)
    else:
        write_file(directory / "ca.pem", trust, 0o644)
    write_file(directory / "gateway.json", json.dumps({"gateway": url}).encode("ascii"), 0o644)
    return _store(directory, key, answer)


def renew(directory: Path, *, force: bool = False, now: float | None = None) -> EnrolledDevice | None:
    """Renew over mTLS with a new key once two thirds of the certificate's life are over; None before that.

    Raises EnrolmentFailed when the gateway says no or cannot be asked, OSError or ValueError for a damaged folder.
    """
    if not force and not is_due(directory, time.time() if now is None else now):
        return None
    context = client_context(directory)
    # Resolved first: the key and the certificate must be of one generation.
    current = (directory / "current").resolve(strict=True)
    context.load_cert_chain(current / "device.pem", current / "device.key")
    key = ec.generate_private_key(ec.SECP256R1())
    answer = _post(gateway_of(directory) + RENEW_PATH, {"csr": _csr(key)}, context)
    return _store(directory, key, answer)


def is_due(directory: Path, now: float) -> bool:
    """Whether two thirds of the certificate's life are over. Raises OSError or ValueError without a certificate."""
    leaf = x509.load_pem_x509_certificates((directory / "device.pem").read_bytes())[0]
    begins, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    return now >= begins + (ends - begins) * _RENEW_AFTER


def gateway_of(directory: Path) -> str:
    """The origin of the gateway that a device is enrolled at. Raises OSError or ValueError for a damaged folder."""
    settings = json.loads((directory / "gateway.json").read_bytes())
    if not isinstance(settings, dict) or not isinstance(settings.get("gateway"), str):
        raise ValueError("gateway.json names no gateway")  # noqa: TRY004  (a damaged folder)
    return _origin(settings["gateway"])


def client_context(directory: Path) -> ssl.SSLContext:
    """TLS that believes the gateway as the enrolment did, without the device's certificate. Raises OSError."""
    return _context(_ca(directory))


def _store(directory: Path, key: ec.EllipticCurvePrivateKey, answer: dict[str, str]) -> EnrolledDevice:
    """Keep the pair when the certificate is for this key; the one before stays until the new one is complete."""
    try:
        leaf = x509.load_pem_x509_certificates(answer["certificate"].encode("ascii"))[0]
    except ValueError as error:
        raise EnrolmentFailed("the gateway's answer holds no certificate") from error
    if leaf.public_key() != key.public_key():
        raise EnrolmentFailed("the gateway's certificate is for another key")
    generation = directory / f"generation-{leaf.serial_number:032x}"
    generation.mkdir(mode=0o700)
    write_file(generation / "device.key", key_pem(key), 0o600)
    write_file(generation / "device.pem", (answer["certificate"] + answer["chain"]).encode("ascii"), 0o600)
    for name in ("device.key", "device.pem"):
        _link(directory / name, Path("current") / name)
    _link(directory / "current", Path(generation.name))
    for other in directory.glob("generation-*"):
        if other.name != generation.name:
            shutil.rmtree(other, ignore_errors=True)
    return EnrolledDevice(
        device_id=answer["device_id"],
        certificate=directory / "device.pem",
        key=directory / "device.key",
        ca=_ca(directory),
        not_after=leaf.not_valid_after_utc.timestamp(),
    )


def _ca(directory: Path) -> Path | None:
    path = directory / "ca.pem"
    return path if path.exists() else None


def _link(path: Path, target: Path) -> None:
    """Point `path` to `target` in one step."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    temporary.symlink_to(target)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _csr(key: ec.EllipticCurvePrivateKey) -> str:
    # The gateway takes nothing but the key from this.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.path not in {"", "/"}:
        raise ValueError("the gateway's address must look like https://gateway.example.com")
    return f"https://{parts.netloc}"


def _context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _post(url: str, body: dict[str, str], context: ssl.SSLContext) -> dict[str, str]:
    try:
        # No environment: a proxy named there would see the token.
        with httpx.Client(verify=context, timeout=_TIMEOUT_S, trust_env=False) as client:
            response = client.post(url, json=body)
            content = response.content
    except httpx.HTTPError as error:
        fix = "Correct the address; with --ca name the CA of the gateway's certificate."
        raise EnrolmentFailed(f"the gateway cannot be reached: {error}", fix) from error
    if len(content) > _ANSWER_LIMIT_BYTES:
        raise EnrolmentFailed("the gateway's answer is too large")
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not response.is_success:
        reason = answer.get("reason") if isinstance(answer, dict) else None
        raise EnrolmentFailed(f"the gateway refused: HTTP {response.status_code} {reason or ''}".rstrip())
    names = ("certificate", "chain", "device_id")
    if not isinstance(answer, dict) or not all(isinstance(answer.get(name), str) for name in names):
        raise EnrolmentFailed("the gateway's answer does not fit the contract")
    texts = {name: answer[name] for name in names}
    if not all(text.isascii() for text in texts.values()):
        raise EnrolmentFailed("the gateway's answer does not fit the contract")
    return texts
