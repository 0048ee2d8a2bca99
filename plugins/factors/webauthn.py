"""`webauthn`: a passkey or security key, with the person verified by it (W3C Web Authentication, Level 2).

Laws: user verification is required, both times. The origin is one of ours to the letter, and not inside a frame of
another. A challenge is random and belongs to one pending step. A sign count that does not grow is refused.
"""

from __future__ import annotations

import json
import re
import secrets
import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    base64url_to_bytes,
    bytes_to_base64url,
    decode_credential_public_key,
    decoded_public_key_to_cryptography,
    parse_authentication_credential_json,
    parse_cbor,
    parse_client_data_json,
    parse_registration_credential_json,
)
from webauthn.helpers.cose import COSEKTY, COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AttestationConveyancePreference,
    AttestationFormat,
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from gateway.core.factors import FactorOwner, FactorProven, FactorStep
from gateway.core.reasons import Refusal

_CHALLENGE_BYTES = 32
_TIMEOUT_MS = 300_000
_ANSWER_LIMIT_BYTES, _KEY_LIMIT_BYTES, _ID_LIMIT_BYTES = 65_536, 1_024, 1_023
_KEY_TYPES = {
    COSEAlgorithmIdentifier.ECDSA_SHA_256: COSEKTY.EC2,
    COSEAlgorithmIdentifier.EDDSA: COSEKTY.OKP,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256: COSEKTY.RSA,
}
_ALGORITHMS = list(_KEY_TYPES)
# We ask for no attestation; a browser then leaves in only what the credential signs for itself.
_FORMATS = {AttestationFormat.NONE, AttestationFormat.PACKED}
_TRANSPORTS = {transport.value for transport in AuthenticatorTransport}
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.(?!-)[a-z0-9-]{1,63})*\Z")
# Everything that an answer of strange bytes makes the library, or what it reads with, raise.
_GARBAGE = (
    WebAuthnException,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    struct.error,
)


class WebAuthn:
    """Passkeys and security keys. Raises ValueError for settings that no browser would accept.

    `rp_id` is the host of the gateway, or a domain above it; `origins` are where its pages are, as browsers write them;
    `rp_name` is what browsers show. Shown: `publicKey`, for `PublicKeyCredential.parseCreationOptionsFromJSON` and
    `parseRequestOptionsFromJSON`. Answers: `credential.toJSON()`.
    """

    kind = "webauthn"
    amr = frozenset({"user", "hwk", "swk"})
    many = True
    enrol_amr = frozenset({"user"})
    enrol_tries = 1
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["rp_id", "rp_name", "origins"],
        "properties": {
            "rp_id": {"type": "string", "pattern": "^[a-z0-9.-]{1,253}$"},
            "rp_name": {"type": "string", "minLength": 1, "maxLength": 64},
            "origins": {"type": "array", "minItems": 1, "maxItems": 16, "items": {"type": "string", "format": "uri"}},
        },
        "additionalProperties": False,
        "examples": [{"rp_id": "example.com", "rp_name": "Example Ltd", "origins": ["https://gw.example.com"]}],
    }

    def __init__(self, rp_id: str, rp_name: str, origins: Sequence[str]) -> None:
        if not isinstance(rp_id, str) or not _HOST.match(rp_id) or ("." not in rp_id and rp_id != "localhost"):
            raise ValueError("webauthn: rp_id is a domain")
        if not isinstance(rp_name, str) or not rp_name:
            raise ValueError("webauthn: rp_name is missing")
        if not origins or isinstance(origins, str) or not all(_is_under(origin, rp_id) for origin in origins):
            raise ValueError("webauthn: origins are https:// and a host that is rp_id or below it, and no path")
        self._rp_id, self._rp_name, self._origins = rp_id, rp_name, list(origins)

    def enrol_begin(self, owner: FactorOwner, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """Options for `navigator.credentials.create`; keys that are enrolled already are excluded."""
        del now
        challenge = secrets.token_bytes(_CHALLENGE_BYTES)
        options = generate_registration_options(
            rp_id=self._rp_id,
            rp_name=self._rp_name,
            user_id=owner.handle,
            user_name=owner.account or "account",
            challenge=challenge,
            timeout=_TIMEOUT_MS,
            attestation=AttestationConveyancePreference.NONE,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
            ),
            exclude_credentials=_descriptors(states),
            supported_pub_key_algs=_ALGORITHMS,
        )
        pending = {"challenge": bytes_to_base64url(challenge), "user": bytes_to_base64url(owner.handle)}
        return FactorStep(pending, {"publicKey": json.loads(options_to_json(options))})

    def enrol_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> Mapping[str, Any] | Refusal:
        """The credential as the relying party keeps it (section 7.1)."""
        del now
        try:
            credential = parse_registration_credential_json(_text(answer))
            _refuse_frames(credential.response.client_data_json)
            attestation = parse_cbor(credential.response.attestation_object)
            # The library would make that many bytes of a number.
            if not isinstance(attestation["authData"], bytes):
                return Refusal("factor_invalid", "authenticator data that are no bytes")
            if attestation["fmt"] not in _FORMATS:
                return Refusal("factor_invalid", "an attestation that was not asked for")
            registration = verify_registration_response(
                credential=credential,
                expected_challenge=base64url_to_bytes(pending["challenge"]),
                expected_rp_id=self._rp_id,
                expected_origin=self._origins,
                require_user_verification=True,
                supported_pub_key_algs=_ALGORITHMS,
            )
            if (
                len(registration.credential_public_key) > _KEY_LIMIT_BYTES
                or len(registration.credential_id) > _ID_LIMIT_BYTES
            ):
                return Refusal("factor_invalid", "an oversized key")
            if registration.credential_id != credential.raw_id:
                return Refusal("factor_invalid", "two credential ids")
            # A key that is none would only be found out at its first use.
            public_key = decode_credential_public_key(registration.credential_public_key)
            decoded_public_key_to_cryptography(public_key)
            if public_key.kty != _KEY_TYPES[public_key.alg]:
                return Refusal("factor_invalid", "a key of another type than it says")
        except _GARBAGE as error:
            return _refusal(error)
        credential_id = bytes_to_base64url(registration.credential_id)
        if any(state["id"] == credential_id for state in states):
            return Refusal("factor_invalid", "this key is enrolled already")
        transports = credential.response.transports or []
        return {
            "id": credential_id,
            "public_key": bytes_to_base64url(registration.credential_public_key),
            "sign_count": registration.sign_count,
            "synced": registration.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
            "aaguid": registration.aaguid,
            "transports": sorted({transport.value for transport in transports} & _TRANSPORTS),
            "user": pending["user"],
        }

    def challenge_begin(self, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """Options for `navigator.credentials.get`."""
        del now
        challenge = secrets.token_bytes(_CHALLENGE_BYTES)
        options = generate_authentication_options(
            rp_id=self._rp_id,
            challenge=challenge,
            timeout=_TIMEOUT_MS,
            allow_credentials=_descriptors(states),
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return FactorStep(
            {"challenge": bytes_to_base64url(challenge)}, {"publicKey": json.loads(options_to_json(options))}
        )

    def challenge_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> FactorProven | Refusal:
        """Section 7.2. `factor_replayed` for a sign count that did not grow: somebody may have copied the key."""
        del now
        index = next((index for index, state in enumerate(states) if state["id"] == answer.get("id")), None)
        if index is None:
            return Refusal("factor_invalid", "a key that is not enrolled")
        state = states[index]
        try:
            credential = parse_authentication_credential_json(_text(answer))
            _refuse_frames(credential.response.client_data_json)
            assertion = verify_authentication_response(
                credential=credential,
                expected_challenge=base64url_to_bytes(pending["challenge"]),
                expected_rp_id=self._rp_id,
                expected_origin=self._origins,
                credential_public_key=base64url_to_bytes(state["public_key"]),
                credential_current_sign_count=0,  # looked at below, so that it has a reason of its own
                require_user_verification=True,
            )
        except _GARBAGE as error:
            return _refusal(error)
        handle = credential.response.user_handle
        if handle and bytes_to_base64url(handle) != state["user"]:
            return Refusal("factor_invalid", "a key of another person")
        if (assertion.credential_device_type is CredentialDeviceType.MULTI_DEVICE) is not state["synced"]:
            return Refusal("factor_invalid", "a key that says something else of itself than before")
        if (assertion.new_sign_count or state["sign_count"]) and assertion.new_sign_count <= state["sign_count"]:
            return Refusal("factor_replayed", "the sign count of the key did not grow")
        amr = ("user", "swk" if state["synced"] else "hwk")
        return FactorProven(index, {**state, "sign_count": assertion.new_sign_count}, amr)

    def describe(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """`synced`: the key may be on several devices; `aaguid`: its model, as it says itself."""
        return {"synced": state["synced"], "aaguid": state["aaguid"]}


def _is_under(origin: object, rp_id: str) -> bool:
    """Whether a page at `origin` may use `rp_id`; http is for localhost alone, as browsers have it."""
    if not isinstance(origin, str):
        return False
    parts = urlsplit(origin)
    host = parts.hostname or ""
    secure = parts.scheme == "https" or (parts.scheme == "http" and host == "localhost")
    whole = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    return secure and origin == whole and (host == rp_id or host.endswith("." + rp_id))


def _descriptors(states: Sequence[Mapping[str, Any]]) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(
            id=base64url_to_bytes(state["id"]),
            transports=[AuthenticatorTransport(name) for name in state["transports"]],
        )
        for state in states
    ]


def _text(answer: Mapping[str, Any]) -> str:
    text = json.dumps(dict(answer))
    if len(text) > _ANSWER_LIMIT_BYTES:
        raise ValueError("too long an answer")
    return text


def _refuse_frames(client_data: bytes) -> None:
    if parse_client_data_json(client_data).cross_origin:
        raise ValueError("asked for inside a frame of another site")


def _refusal(error: BaseException) -> Refusal:
    """`factor_invalid`. The kind of error tells an operator enough; its text may quote the answer."""
    return Refusal("factor_invalid", type(error).__name__)
