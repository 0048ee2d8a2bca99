"""The device's side of posture: what this machine can say of itself for certain, sent signed over its own connection.

Law: a fact that cannot be read is "unknown", never a guess. Every fact is the device's own word.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.agent.enroll import EnrolmentFailed, client_context, gateway_of
from gateway.identity.devices.posture import signed_report

POSTURE_PATH = "/.gateway/posture"
UNKNOWN = "unknown"
_TIMEOUT_S = 20.0
_TEXT_LIMIT = 128
_LAYERS = 8


def collect(root: Path = Path("/")) -> dict[str, Any]:
    """The facts: `os`, `os_version`, `kernel`, `architecture`, `disk_encrypted`, `screen_lock`, `firewall`.

    Texts, except `disk_encrypted`: whether everything below the root file system is encrypted, or "unknown".
    `screen_lock` and `firewall` cannot be told from here for certain, so they are "unknown". `root` is where /etc and
    /sys are.
    """
    release = _os_release(root)
    return {
        "os": _text(release.get("ID", "")),
        "os_version": _text(release.get("VERSION_ID", "")),
        "kernel": _text(platform.release()),
        "architecture": _text(platform.machine()),
        "disk_encrypted": _is_encrypted(root),
        "screen_lock": UNKNOWN,
        "firewall": UNKNOWN,
    }


def send(directory: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Report facts over mTLS with the device's key: its posture as the gateway keeps it now.

    Raises EnrolmentFailed when the gateway says no or cannot be asked, OSError or ValueError for a damaged folder.
    """
    # Resolved first: the key and the certificate must be of one generation.
    current = (directory / "current").resolve(strict=True)
    context = client_context(directory)
    key = serialization.load_pem_private_key((current / "device.key").read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the device's key is not an elliptic curve key")  # noqa: TRY004  (a damaged folder)
    context.load_cert_chain(current / "device.pem", current / "device.key")
    report = signed_report(facts, key, secrets.token_urlsafe(16), time.time())
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT_S, trust_env=False) as client:
            headers = {"content-type": "application/jwt"}
            response = client.post(gateway_of(directory) + POSTURE_PATH, content=report.encode(), headers=headers)
    except httpx.HTTPError as error:
        raise EnrolmentFailed(f"the gateway cannot be reached: {error}") from error
    try:
        answer = json.loads(response.content)
    except ValueError:
        answer = None
    if not response.is_success:
        code = response.headers.get("x-gateway-reason", "")
        raise EnrolmentFailed(f"the gateway refused: HTTP {response.status_code} {code}".rstrip())
    posture = answer.get("posture") if isinstance(answer, dict) else None
    if not isinstance(posture, dict):
        raise EnrolmentFailed("the gateway's answer does not fit the contract")
    return posture


def _os_release(root: Path) -> dict[str, str]:
    """/etc/os-release (os-release(5)), nothing where it cannot be read."""
    try:
        lines = (root / "etc/os-release").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def _is_encrypted(root: Path) -> bool | str:
    """Whether the root file system lies on dm-crypt alone."""
    try:
        number = root.stat().st_dev
        device = root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
        # Not a block device's number: overlay, network and some other file systems do not say what they lie on.
        return _lies_on_crypt(device.resolve(strict=True), _LAYERS)
    except OSError:
        return UNKNOWN


def _lies_on_crypt(device: Path, layers: int) -> bool:
    """Whether a block device is dm-crypt, or lies on such devices alone. Raises OSError where it cannot be read."""
    uuid = device / "dm/uuid"
    if uuid.exists() and uuid.read_text(encoding="ascii").startswith("CRYPT-"):
        return True
    below = list((device / "slaves").iterdir()) if (device / "slaves").is_dir() else []
    if layers == 0 or not below:
        return False
    return all(_lies_on_crypt(one.resolve(strict=True), layers - 1) for one in below)


def _text(value: str) -> str:
    """A text that a report may hold, "unknown" for none."""
    return "".join(letter for letter in value if letter.isprintable())[:_TEXT_LIMIT] or UNKNOWN
