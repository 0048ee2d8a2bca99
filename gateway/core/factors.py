"""The seam of second-factor plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Protocol

from gateway.core.reasons import Refusal
from gateway.core.subject import subject_key


@dataclass(frozen=True, slots=True)
class FactorOwner:
    """The person a factor belongs to. `account` is the name that apps and keys show (an address, a login name)."""

    issuer: str
    subject: str
    account: str = ""

    @property
    def handle(self) -> bytes:
        """32 bytes that stand for this issuer and subject alone, and say neither."""
        text = f"gateway/v1/factor-owner|{subject_key(self.issuer, self.subject)}"
        return sha256(text.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class FactorStep:
    """The first half of an enrolment or a challenge: what to keep until the answer, and what the person is shown."""

    pending: Mapping[str, Any] = field(repr=False)
    show: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class FactorProven:
    """A good answer: which of the states it proved, that state afterwards, and the `amr` values (RFC 8176) it earns."""

    index: int
    state: Mapping[str, Any] = field(repr=False)
    amr: tuple[str, ...]


class Factor(Protocol):
    """One kind of second factor. It keeps nothing: state goes in and comes out, and the caller brings the time.

    A state and a `pending` are JSON objects that the caller keeps sealed. `states` are those of this kind and owner.
    `answer` is what the browser sent, unverified: whatever is in it, the answer is a value. Methods may take a while
    (hashing), so they are called outside the event loop, from several threads.

    `amr`: every value that a proof may earn. `many`: a person may have several; of the others a new one replaces the
    old. `enrol_amr`: what an enrolment proves, as a proof would; empty for a kind that is of use beside another one
    only. `enrol_tries`: how many answers an enrolment takes before it has to begin anew. `schema`: the JSON Schema of
    the constructor's arguments.
    """

    kind: str
    amr: frozenset[str]
    many: bool
    enrol_amr: frozenset[str]
    enrol_tries: int
    schema: ClassVar[Mapping[str, Any]]

    def enrol_begin(self, owner: FactorOwner, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """Begin an enrolment."""

    def enrol_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> Mapping[str, Any] | Refusal:
        """The new factor's state, or `factor_invalid`."""

    def challenge_begin(self, states: Sequence[Mapping[str, Any]], now: float) -> FactorStep:
        """Ask for a proof of one of `states`, of which there is at least one."""

    def challenge_finish(
        self, pending: Mapping[str, Any], states: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], now: float
    ) -> FactorProven | Refusal:
        """What was proven, or `factor_invalid` or `factor_replayed`."""

    def describe(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the owner's list of factors says of one; nothing secret."""
