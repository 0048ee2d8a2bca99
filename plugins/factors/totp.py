"""`totp`: the six digits of an authenticator app (RFC 6238: SHA-1, 30 seconds, a secret of 160 bits).

Law: a time step that was used, and every one before it, is refused for ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import Any, ClassVar

import pyotp
import segno

from gateway.core.factors import FactorOwner, FactorProven, FactorStep
from gateway.core.reasons import Refusal

_SECRET_CHARACTERS = 32  # of base32: 160 bits, as RFC 4226 section 4 asks for
_STEP_S = 30
_WINDOW = (-1, 0, 1)  # steps: for clocks that differ and people who type slowly
_CODE = re.compile(r"[0-9]{6}\Z")


class Totp:
    """An authenticator app. `issuer_name` is what it shows above the account. Raises ValueError for one that is not.

    Shown at enrolment: `secret`, `uri` (otpauth) and `qr_svg`, the same as a QR code. Answers: `{"code": "123456"}`.
    """

    kind = "totp"
    amr = frozenset({"otp"})
    many = False
    enrol_amr = frozenset({"otp"})
    enrol_tries = 5
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["issuer_name"],
        "properties": {"issuer_name": {"type": "string", "pattern": "^[^:\\x00-\\x1f]{1,64}$"}},
        "additionalProperties": False,
        "examples": [{"issuer_name": "Example Ltd"}],
    }

    def __init__(self, issuer_name: str) -> None:
        if not isinstance(issuer_name, str) or not re.match(r"[^:\x00-\x1f]{1,64}\Z", issuer_name):
            raise ValueError("totp: issuer_name is a short text without a colon")
        self._issuer_name = issuer_name

    def enrol_begin(self, owner: FactorOwner, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """A fresh secret."""
        del states, now
        secret = pyotp.random_base32(_SECRET_CHARACTERS)
        account = owner.account.replace(":", " ") or "account"
        uri = pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=self._issuer_name)
        qr = segno.make(uri, error="m", micro=False).svg_inline(scale=4, light="#fff")
        return FactorStep({"secret": secret}, {"secret": secret, "uri": uri, "qr_svg": qr})

    def enrol_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> Mapping[str, Any] | Refusal:
        """The secret and the step of the code that proved it, which is used with that."""
        del states
        step = _step_of(pending["secret"], answer, now)
        return Refusal("factor_invalid") if step is None else {"secret": pending["secret"], "last_step": step}

    def challenge_begin(self, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """Nothing is sent: the app knows the time."""
        del states, now
        return FactorStep({}, {})

    def challenge_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> FactorProven | Refusal:
        """`factor_replayed` for the code of a step that was used, or of one before it."""
        del pending
        refusal = Refusal("factor_invalid")
        for index, state in enumerate(states):
            step = _step_of(state["secret"], answer, now)
            if step is None:
                continue
            if step > state["last_step"]:
                return FactorProven(index, {**state, "last_step": step}, ("otp",))
            refusal = Refusal("factor_replayed", "a time step that was used")
        return refusal

    def describe(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nothing more."""
        del state
        return {}


def _step_of(secret: str, answer: Mapping[str, Any], now: float) -> int | None:
    """The time step whose code this is, None for no code of the window. Every step is compared, whichever fits."""
    code = answer.get("code")
    if not isinstance(code, str) or not _CODE.match(code := code.replace(" ", "")):
        return None
    totp, present, used_step = pyotp.TOTP(secret), int(now // _STEP_S), None
    for step in (present + offset for offset in _WINDOW):
        if compare_digest(totp.generate_otp(step), code):
            used_step = step
    return used_step
