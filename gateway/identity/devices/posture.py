"""What a device says of itself: a small report, signed with the key of its certificate, over its own connection.

Law: a report tells only of the device that signed it, now, once. It is the device's own word, so it can only be as good
as the device; what other systems say of it comes by shared signals, and policy sees both with their age.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from gateway.core.ports.stores import DeviceRecord, DeviceStore, ReplayStore
from gateway.core.reasons import Refusal
from gateway.core.request import Peer
from gateway.core.subject import Device
from gateway.identity.jose.jws import b64url_decode, b64url_encode
from gateway.identity.jose.strict_json import read_object

TYP = "gateway-posture+jwt"
FRESH_S = 60.0
_LIMIT_BYTES, _PARTS, _FACTS = 8_192, 3, 32
_NAME = re.compile(r"[a-z][a-z0-9_]{1,39}\Z")
_JTI = re.compile(r"[A-Za-z0-9_-]{16,64}\Z")
_TEXT_LIMIT, _COORDINATE = 128, 32
# What other systems say of a device; it may not say so itself.
_NOT_ITS_OWN = ("compliant", "compliance_by", "compliance_at", "reported_at")


class PostureReports:
    """Takes reports of devices. Raises StoreDown."""

    def __init__(self, devices: DeviceStore, replays: ReplayStore, clock: Callable[[], float]) -> None:
        self._devices = devices
        self._replays = replays
        self._clock = clock

    async def take(self, token: str, device: Device, peer: Peer) -> Mapping[str, Any] | Refusal:
        """The device's posture after its report.

        Refusals: `malformed_request`, `token_signature_invalid`, `token_expired`, `token_replayed`, `device_unknown`.
        """
        claims = _verified(token, peer)
        if isinstance(claims, Refusal):
            return claims
        now, issued, jti, facts = self._clock(), claims.get("iat"), claims.get("jti"), claims.get("posture")
        if isinstance(issued, bool) or not isinstance(issued, int | float) or not math.isfinite(issued):
            return Refusal("malformed_request", "iat")
        if not abs(now - issued) <= FRESH_S:
            return Refusal("token_expired", "posture report")
        if not isinstance(jti, str) or not _JTI.match(jti) or not isinstance(facts, dict) or not _are_facts(facts):
            return Refusal("malformed_request", "jti or posture")
        if not await self._replays.first_use(f"posture|{device.id}|{jti}", now, now + 2 * FRESH_S):
            return Refusal("token_replayed", "posture report")

        def report(record: DeviceRecord) -> DeviceRecord:
            others = {name: record.posture[name] for name in _NOT_ITS_OWN if name in record.posture}
            return replace(record, posture={**facts, **others, "reported_at": now})

        record = await self._devices.change_device(device.id, report)
        return Refusal("device_unknown") if record is None else record.posture


def signed_report(facts: Mapping[str, Any], key: ec.EllipticCurvePrivateKey, jti: str, now: float) -> str:
    """A report as the device sends it: a compact JWS (ES256) whose key is that of its certificate."""
    parts = ({"alg": "ES256", "typ": TYP}, {"iat": int(now), "jti": jti, "posture": dict(facts)})
    message = ".".join(b64url_encode(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    r, s = decode_dss_signature(key.sign(message.encode("ascii"), ec.ECDSA(hashes.SHA256())))
    return f"{message}.{b64url_encode(r.to_bytes(_COORDINATE) + s.to_bytes(_COORDINATE))}"


def _verified(token: str, peer: Peer) -> Mapping[str, Any] | Refusal:
    """The claims of a report that the key of this connection's certificate signed."""
    parts = token.split(".")
    if len(token) > _LIMIT_BYTES or len(parts) != _PARTS or not token.isascii() or not peer.chain:
        return Refusal("malformed_request", "not a signed report")
    raw_header, raw_claims, signature = (b64url_decode(part) for part in parts)
    header = read_object(raw_header, depth=2, members=8) if raw_header is not None else None
    claims = read_object(raw_claims) if raw_claims is not None else None
    if header is None or claims is None or signature is None or header != {"alg": "ES256", "typ": TYP}:
        return Refusal("malformed_request", "not a posture report")
    key = x509.load_der_x509_certificate(peer.chain[0]).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature) != 2 * _COORDINATE:
        return Refusal("token_signature_invalid", "posture report")
    pair = int.from_bytes(signature[:_COORDINATE]), int.from_bytes(signature[_COORDINATE:])
    try:
        key.verify(encode_dss_signature(*pair), f"{parts[0]}.{parts[1]}".encode("ascii"), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return Refusal("token_signature_invalid", "posture report")
    return claims


def _are_facts(facts: Mapping[Any, Any]) -> bool:
    """Whether these are named texts, numbers and truths, none of them another system's to say."""
    if not 0 < len(facts) <= _FACTS:
        return False
    return all(
        isinstance(name, str) and _NAME.match(name) and name not in _NOT_ITS_OWN and _is_plain(value)
        for name, value in facts.items()
    )


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _TEXT_LIMIT and value.isprintable()
    return isinstance(value, bool | int | float) and math.isfinite(value) and abs(value) <= 1 << 53
