"""`recovery`: codes on paper, for the day the other factors are lost.

Laws: the codes are shown once and kept as Argon2id hashes. A code works once. Every answer costs one hash, and is
compared with all of them.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import Any, ClassVar

from argon2.low_level import Type, hash_secret_raw

from gateway.core.factors import FactorOwner, FactorProven, FactorStep
from gateway.core.reasons import Refusal

_CODES = 10
_CHARACTERS, _GROUP = 16, 4  # 80 bits
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32: no i, l, o, u
_MISREAD = str.maketrans("ilo", "110", "- ")
# Of OWASP's equivalent choices, the one with the least memory that is still hard on graphics cards: 19 MiB, two passes,
# one lane. The codes are random, so it is the second line of defence.
_COST = {"time_cost": 2, "memory_cost": 19_456, "parallelism": 1}
_SALT_BYTES, _HASH_BYTES = 16, 32


class Recovery:
    """A set of ten codes of 80 bits, as `xxxx-xxxx-xxxx-xxxx`.

    Shown at enrolment: `codes`. Answers: `{"saved": true}` at enrolment, `{"code": "..."}` later; how it is written
    (case, hyphens, blanks, O for 0, I and L for 1) does not matter. One salt serves a set: its codes are unlike by
    chance alone, and so an answer costs one hash instead of ten.
    """

    kind = "recovery"
    amr = frozenset({"recovery"})
    many = False
    enrol_amr: frozenset[str] = frozenset()
    enrol_tries = 1
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
        "examples": [{}],
    }

    def enrol_begin(self, owner: FactorOwner, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """Fresh codes; they are in `show` and nowhere else."""
        del owner, states, now
        salt = secrets.token_bytes(_SALT_BYTES)
        codes = ["".join(secrets.choice(_ALPHABET) for _ in range(_CHARACTERS)) for _ in range(_CODES)]
        kept = [{"hash": _text(_hash(code, salt, _COST)), "used": False} for code in codes]
        written = ["-".join(code[at : at + _GROUP] for at in range(0, _CHARACTERS, _GROUP)) for code in codes]
        return FactorStep({"salt": _text(salt), "cost": _COST, "codes": kept}, {"codes": written})

    def enrol_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> Mapping[str, Any] | Refusal:
        """The hashes, once the person says that the codes are saved."""
        del states, now
        return pending if answer.get("saved") is True else Refusal("factor_invalid", "the codes are not saved")

    def challenge_begin(self, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """Nothing is sent."""
        del states, now
        return FactorStep({}, {})

    def challenge_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> FactorProven | Refusal:
        """The state with that code used; `factor_replayed` for one that was."""
        del pending, now
        code = _plain(answer.get("code"))
        if code is None:
            return Refusal("factor_invalid")
        refusal = Refusal("factor_invalid")
        for index, state in enumerate(states):
            digest = _hash(code, b64decode(state["salt"]), state["cost"])
            hits = [compare_digest(digest, b64decode(code_state["hash"])) for code_state in state["codes"]]
            if not any(hits):
                continue
            if state["codes"][hits.index(True)]["used"]:
                refusal = Refusal("factor_replayed", "a recovery code that was used")
                continue
            code_state = [{**item, "used": item["used"] or hit} for item, hit in zip(state["codes"], hits, strict=True)]
            return FactorProven(index, {**state, "codes": code_state}, ("recovery",))
        return refusal

    def describe(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """`left`: how many codes still work."""
        return {"left": sum(not kept["used"] for kept in state["codes"])}


def _plain(code: object) -> str | None:
    """The 16 characters of a code however it was written, None for what is none."""
    if not isinstance(code, str) or len(code) > 4 * _CHARACTERS:
        return None
    plain = code.lower().translate(_MISREAD)
    return plain if len(plain) == _CHARACTERS and set(plain) <= set(_ALPHABET) else None


def _hash(code: str, salt: bytes, cost: Mapping[str, int]) -> bytes:
    return hash_secret_raw(code.encode("ascii"), salt, hash_len=_HASH_BYTES, type=Type.ID, **cost)


def _text(value: bytes) -> str:
    return b64encode(value).decode("ascii")
