"""The service with its real plugins, a real store and a security key in software."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyotp
import pytest

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.factors import FactorOwner
from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import REASONS, Refusal
from gateway.identity.factors.store import (
    FACTORS,
    MOST_FACTORS,
    MOST_STEPS,
    STEPS,
    EnrolledFactor,
    Factors,
    PendingChallenge,
    Proof,
)
from plugins.factors import builtin
from tests.support.login_world import Clock
from tests.support.webauthn_authenticator import Authenticator  # the tests of the plugins use it too

ADA = FactorOwner("https://id.example.com", "ada", "ada@example.com")
BOB = replace(ADA, subject="bob")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "gateway.db", bytes(32), clock)
    yield store
    await store.close()


@pytest.fixture
def documents(store: SqliteStore) -> SqliteDocuments:
    return SqliteDocuments(store)


@pytest.fixture
def factors(documents: SqliteDocuments, clock: Clock) -> Factors:
    return Factors(documents, builtin("Example", "example.com", ["https://gw.example.com"]), clock)


@pytest.fixture
def ada(factors: Factors, clock: Clock) -> Person:
    return Person(factors, clock, ADA)


class Person:
    """Somebody with an app, a key and paper, at a browser."""

    def __init__(self, factors: Factors, clock: Clock, owner: FactorOwner) -> None:
        self.factors, self.clock, self.owner = factors, clock, owner
        self.key = Authenticator()
        self.secret = ""
        self.codes: list[str] = []

    async def begin(self, kind: str, proof: Proof | None = None) -> PendingChallenge:
        begun = await self.factors.begin_enrolment(self.owner, kind, proof)
        assert isinstance(begun, PendingChallenge), begun
        return begun

    def code(self) -> dict[str, Any]:
        return {"code": pyotp.TOTP(self.secret).at(int(self.clock()))}

    async def enrol(self, kind: str, proof: Proof | None = None, label: str = "") -> EnrolledFactor:
        begun = await self.begin(kind, proof)
        self.secret = begun.show.get("secret", self.secret)
        self.codes = list(begun.show.get("codes", self.codes))
        answer = {"recovery": lambda: {"saved": True}, "webauthn": lambda: self.key.create(begun.show)}.get(
            kind, self.code
        )()
        found = await self.factors.finish_enrolment(self.owner, begun.id, answer, label)
        assert isinstance(found, EnrolledFactor), found
        self.clock.now += 30
        return found

    async def challenge(self, kind: str) -> PendingChallenge:
        begun = await self.factors.begin_challenge(self.owner, kind)
        assert isinstance(begun, PendingChallenge), begun
        return begun

    async def say(self, kind: str, answer: Any) -> Proof | Refusal:
        begun = await self.challenge(kind)
        return await self.factors.finish_challenge(self.owner, begun.id, answer)

    async def prove(self, kind: str) -> Proof:
        begun = await self.challenge(kind)
        answer = {"recovery": lambda: {"code": self.codes[0]}, "webauthn": lambda: self.key.get(begun.show)}.get(
            kind, self.code
        )()
        found = await self.factors.finish_challenge(self.owner, begun.id, answer)
        assert isinstance(found, Proof), found
        return found


def reason(found: object) -> str:
    assert isinstance(found, Refusal), found
    assert found.reason in REASONS
    return found.reason


# ---- enrolment and proof ----


@pytest.mark.parametrize(
    ("kind", "amr"), [("totp", ("otp",)), ("webauthn", ("user", "hwk")), ("recovery", ("recovery",))]
)
async def test_a_factor_is_enrolled_listed_and_proven(ada: Person, kind: str, amr: tuple[str, ...]) -> None:
    assert await ada.factors.enrolled(ADA) == []
    enrolled = await ada.enrol(kind, label="  my\x00 thing\n ")
    assert (enrolled.kind, enrolled.label, enrolled.used_at) == (kind, "my thing", None)
    assert await ada.factors.enrolled(ADA) == [enrolled]
    proof = await ada.prove(kind)
    assert proof == Proof(ADA.issuer, "ada", enrolled.id, kind, amr, ada.clock())
    [listed] = await ada.factors.enrolled(ADA)
    assert listed.used_at == ada.clock()


async def test_the_list_says_how_many_recovery_codes_are_left(ada: Person) -> None:
    await ada.enrol("recovery")
    await ada.prove("recovery")
    [listed] = await ada.factors.enrolled(ADA)
    assert listed.about == {"left": 9}


async def test_factors_belong_to_one_subject_of_one_issuer(ada: Person) -> None:
    await ada.enrol("totp")
    for stranger in (BOB, replace(ADA, issuer="https://other.example.com")):
        assert await ada.factors.enrolled(stranger) == []
        assert reason(await ada.factors.begin_challenge(stranger, "totp")) == "factor_unknown"


async def test_an_unknown_kind_is_refused(ada: Person) -> None:
    assert reason(await ada.factors.begin_enrolment(ADA, "carrier_pigeon")) == "factor_unknown"
    assert reason(await ada.factors.begin_challenge(ADA, "carrier_pigeon")) == "factor_unknown"
    assert reason(await ada.factors.begin_challenge(ADA, "totp")) == "factor_unknown"


async def test_a_kind_that_is_switched_off_is_listed_and_not_proven(
    ada: Person, documents: SqliteDocuments, clock: Clock
) -> None:
    await ada.enrol("totp")
    begun = await ada.challenge("totp")
    without = Factors(documents, {}, clock)
    assert [factor.kind for factor in await without.enrolled(ADA)] == ["totp"]
    assert reason(await without.begin_challenge(ADA, "totp")) == "factor_unknown"
    assert reason(await without.finish_challenge(ADA, begun.id, ada.code())) == "factor_unknown"


async def test_a_typing_error_does_not_end_the_enrolment_of_an_app(ada: Person) -> None:
    begun = await ada.begin("totp")
    ada.secret = begun.show["secret"]
    for _ in range(4):
        assert reason(await ada.factors.finish_enrolment(ADA, begun.id, {"code": "000000"})) == "factor_invalid"
    assert isinstance(await ada.factors.finish_enrolment(ADA, begun.id, ada.code()), EnrolledFactor)


async def test_five_typing_errors_end_it(ada: Person) -> None:
    begun = await ada.begin("totp")
    ada.secret = begun.show["secret"]
    for _ in range(5):
        assert reason(await ada.factors.finish_enrolment(ADA, begun.id, {"code": "000000"})) == "factor_invalid"
    assert reason(await ada.factors.finish_enrolment(ADA, begun.id, ada.code())) == "factor_expired"


async def test_a_wrong_answer_of_a_key_ends_its_enrolment(ada: Person) -> None:
    begun = await ada.begin("webauthn")
    ada.key.origin = "https://evil.example.com"
    assert reason(await ada.factors.finish_enrolment(ADA, begun.id, ada.key.create(begun.show))) == "factor_invalid"
    ada.key.origin = "https://gw.example.com"
    assert reason(await ada.factors.finish_enrolment(ADA, begun.id, ada.key.create(begun.show))) == "factor_expired"


# ---- a question is answered once, in time, by the person it was put to ----


async def test_a_question_is_answered_once(ada: Person) -> None:
    await ada.enrol("webauthn")
    begun = await ada.challenge("webauthn")
    answer = ada.key.get(begun.show)
    assert isinstance(await ada.factors.finish_challenge(ADA, begun.id, answer), Proof)
    assert reason(await ada.factors.finish_challenge(ADA, begun.id, answer)) == "factor_expired"


async def test_a_wrong_answer_ends_the_question_too(ada: Person) -> None:
    await ada.enrol("totp")
    begun = await ada.challenge("totp")
    assert reason(await ada.factors.finish_challenge(ADA, begun.id, {})) == "factor_invalid"
    assert reason(await ada.factors.finish_challenge(ADA, begun.id, ada.code())) == "factor_expired"


async def test_of_many_equal_answers_at_the_same_time_one_is_good(ada: Person) -> None:
    await ada.enrol("webauthn")
    begun = await ada.challenge("webauthn")
    answer = ada.key.get(begun.show)
    found = await asyncio.gather(*(ada.factors.finish_challenge(ADA, begun.id, answer) for _ in range(10)))
    assert sum(isinstance(item, Proof) for item in found) == 1


async def test_a_question_is_over_after_five_minutes_and_an_enrolment_after_ten(ada: Person) -> None:
    await ada.enrol("webauthn")
    begun = await ada.challenge("webauthn")
    assert begun.expires_at == ada.clock() + 300
    ada.clock.now += 300
    assert reason(await ada.factors.finish_challenge(ADA, begun.id, ada.key.get(begun.show))) == "factor_expired"
    await ada.factors.forget(ADA)
    begun, ada.key = await ada.begin("webauthn"), Authenticator()
    ada.clock.now += 600
    assert reason(await ada.factors.finish_enrolment(ADA, begun.id, ada.key.create(begun.show))) == "factor_expired"


async def test_nobody_answers_or_ends_the_question_of_another(ada: Person) -> None:
    await ada.enrol("totp")
    begun = await ada.challenge("totp")
    assert reason(await ada.factors.finish_challenge(BOB, begun.id, ada.code())) == "factor_expired"
    assert reason(await ada.factors.finish_enrolment(ADA, begun.id, ada.code())) == "factor_expired"
    assert isinstance(await ada.factors.finish_challenge(ADA, begun.id, ada.code()), Proof)


@pytest.mark.parametrize("step_id", ["", "x", "x" * 43, "x" * 100_000, "\ud800" * 43, "../../etc"])
async def test_a_question_nobody_asked_is_refused(ada: Person, step_id: str) -> None:
    assert reason(await ada.factors.finish_challenge(ADA, step_id, {})) == "factor_expired"
    assert reason(await ada.factors.finish_enrolment(ADA, step_id, {})) == "factor_expired"


async def test_of_too_many_open_questions_the_oldest_go(ada: Person, documents: SqliteDocuments) -> None:
    await ada.enrol("totp")
    begun = [await ada.challenge("totp") for _ in range(MOST_STEPS + 3)]
    assert len(await documents.list(STEPS, ADA.handle.hex(), ada.clock())) == MOST_STEPS
    assert reason(await ada.factors.finish_challenge(ADA, begun[2].id, ada.code())) == "factor_expired"
    assert isinstance(await ada.factors.finish_challenge(ADA, begun[3].id, ada.code()), Proof)


# ---- what is used up ----


async def test_a_code_that_was_used_is_refused_for_ever(ada: Person) -> None:
    await ada.enrol("totp")
    answer = ada.code()
    assert isinstance(await ada.say("totp", answer), Proof)
    assert reason(await ada.say("totp", answer)) == "factor_replayed"


async def test_one_code_in_many_questions_at_the_same_time_is_used_once(
    ada: Person, documents: SqliteDocuments
) -> None:
    await ada.enrol("totp")
    other = Factors(documents, builtin("Example", "example.com", ["https://gw.example.com"]), ada.clock)
    begun = [await ada.challenge("totp") for _ in range(4)]
    answers = (
        service.finish_challenge(ADA, step.id, ada.code())
        for service, step in zip((ada.factors, other) * 2, begun, strict=True)
    )
    found = await asyncio.gather(*answers)
    assert sum(isinstance(item, Proof) for item in found) == 1
    assert {item.reason for item in found if isinstance(item, Refusal)} == {"factor_replayed"}


async def test_a_recovery_code_works_once(ada: Person) -> None:
    await ada.enrol("recovery")
    await ada.prove("recovery")
    assert reason(await ada.say("recovery", {"code": ada.codes[0]})) == "factor_replayed"
    assert isinstance(await ada.say("recovery", {"code": ada.codes[1]}), Proof)


async def test_a_copied_key_is_refused(ada: Person) -> None:
    await ada.enrol("webauthn")
    copy = replace(ada.key)
    for _ in range(2):
        await ada.prove("webauthn")
    begun = await ada.challenge("webauthn")
    assert reason(await ada.factors.finish_challenge(ADA, begun.id, copy.get(begun.show))) == "factor_replayed"


# ---- who has a factor adds and removes with a proof only ----


async def test_a_second_factor_needs_a_proof_of_the_first(ada: Person) -> None:
    await ada.enrol("totp")
    assert reason(await ada.factors.begin_enrolment(ADA, "webauthn")) == "factor_proof_missing"
    await ada.enrol("webauthn", await ada.prove("totp"))
    assert [factor.kind for factor in await ada.factors.enrolled(ADA)] == ["totp", "webauthn"]


@pytest.mark.parametrize(
    "change",
    [{"subject": "bob"}, {"issuer": "https://x"}, {"factor_id": "x"}, {"factor_id": ""}, {"at": 0.0}, {"at": 9e12}],
)
async def test_a_proof_of_something_else_is_none(ada: Person, change: dict[str, Any]) -> None:
    first = await ada.enrol("totp")
    proof = replace(await ada.prove("totp"), **change)
    assert reason(await ada.factors.begin_enrolment(ADA, "webauthn", proof)) == "factor_proof_missing"
    assert reason(await ada.factors.remove(ADA, first.id, proof)) == "factor_proof_missing"


async def test_a_proof_is_fresh_for_five_minutes(ada: Person) -> None:
    await ada.enrol("totp")
    proof = await ada.prove("totp")
    ada.clock.now += 300
    await ada.begin("webauthn", proof)
    ada.clock.now += 0.1
    assert reason(await ada.factors.begin_enrolment(ADA, "webauthn", proof)) == "factor_proof_missing"


async def test_an_enrolment_begun_before_the_first_factor_was_there_needs_a_proof(ada: Person) -> None:
    thief = await ada.begin("webauthn")
    await ada.enrol("totp")
    answer = Authenticator().create(thief.show)
    assert reason(await ada.factors.finish_enrolment(ADA, thief.id, answer)) == "factor_proof_missing"
    assert [factor.kind for factor in await ada.factors.enrolled(ADA)] == ["totp"]


async def test_of_two_first_enrolments_at_the_same_time_one_is_the_first(ada: Person) -> None:
    begun = [await ada.begin("webauthn") for _ in range(4)]
    answers = (ada.factors.finish_enrolment(ADA, step.id, Authenticator().create(step.show)) for step in begun)
    found = await asyncio.gather(*answers)
    assert sum(isinstance(item, EnrolledFactor) for item in found) == 1
    assert {item.reason for item in found if isinstance(item, Refusal)} == {"factor_proof_missing"}


async def test_an_enrolment_whose_proof_was_removed_meanwhile_is_refused(ada: Person) -> None:
    await ada.enrol("totp")
    key = await ada.enrol("webauthn", await ada.prove("totp"))
    thief = await ada.begin("webauthn", await ada.prove("webauthn"))
    ada.clock.now += 30
    assert await ada.factors.remove(ADA, key.id, await ada.prove("totp")) is None
    answer = Authenticator().create(thief.show)
    assert reason(await ada.factors.finish_enrolment(ADA, thief.id, answer)) == "factor_proof_missing"


async def test_a_new_app_replaces_the_old_one_and_a_new_key_does_not(ada: Person) -> None:
    old = await ada.enrol("totp")
    old_secret = ada.secret
    new = await ada.enrol("totp", await ada.prove("totp"))
    assert [factor.id for factor in await ada.factors.enrolled(ADA)] == [new.id]
    assert new.id != old.id
    assert reason(await ada.say("totp", {"code": pyotp.TOTP(old_secret).at(int(ada.clock()))})) == "factor_invalid"
    await ada.enrol("webauthn", await ada.prove("totp"))
    ada.key = Authenticator()
    ada.clock.now += 30
    await ada.enrol("webauthn", await ada.prove("totp"))
    assert len(await ada.factors.enrolled(ADA)) == 3


async def test_one_key_is_enrolled_once_even_by_two_enrolments_at_the_same_time(ada: Person) -> None:
    await ada.enrol("totp")
    proof = await ada.prove("totp")
    begun = [await ada.begin("webauthn", proof) for _ in range(2)]
    answers = [ada.key.create(step.show) for step in begun]
    found = await asyncio.gather(
        *(ada.factors.finish_enrolment(ADA, step.id, answer) for step, answer in zip(begun, answers, strict=True))
    )
    assert sum(isinstance(item, EnrolledFactor) for item in found) == 1


async def test_a_factor_is_removed_with_a_proof(ada: Person) -> None:
    app = await ada.enrol("totp")
    assert reason(await ada.factors.remove(ADA, app.id, None)) == "factor_proof_missing"
    proof = await ada.prove("totp")
    assert reason(await ada.factors.remove(ADA, "unknown", proof)) == "factor_unknown"
    assert reason(await ada.factors.remove(BOB, app.id, proof)) == "factor_unknown"
    begun = await ada.challenge("totp")
    assert await ada.factors.remove(ADA, app.id, proof) is None
    assert await ada.factors.enrolled(ADA) == []
    ada.clock.now += 30
    assert reason(await ada.factors.finish_challenge(ADA, begun.id, ada.code())) == "factor_unknown"


async def test_an_operator_removes_them_all(ada: Person) -> None:
    assert await ada.factors.forget(ADA) is False
    await ada.enrol("totp")
    assert await ada.factors.forget(ADA) is True
    assert await ada.factors.enrolled(ADA) == []
    await ada.enrol("totp")


async def test_a_person_has_a_limited_number_of_factors(ada: Person) -> None:
    await ada.enrol("webauthn")
    proof = await ada.prove("webauthn")
    for _ in range(MOST_FACTORS - 2):
        ada.key = Authenticator()
        await ada.enrol("webauthn", replace(proof, at=ada.clock()))
    begun = [await ada.begin("webauthn", replace(proof, at=ada.clock())) for _ in range(2)]
    answers = [Authenticator().create(step.show) for step in begun]
    assert isinstance(await ada.factors.finish_enrolment(ADA, begun[0].id, answers[0]), EnrolledFactor)
    assert reason(await ada.factors.finish_enrolment(ADA, begun[1].id, answers[1])) == "factor_limit"
    late = replace(proof, at=ada.clock())
    assert reason(await ada.factors.begin_enrolment(ADA, "webauthn", late)) == "factor_limit"


# ---- guessing ----


async def test_five_wrong_answers_lock_that_kind_for_that_person_for_a_growing_time(ada: Person) -> None:
    await ada.enrol("recovery")
    await ada.enrol("totp", await ada.prove("recovery"))
    bob = Person(ada.factors, ada.clock, BOB)
    await bob.enrol("totp")
    for minutes in (5, 10, 20):
        before = await ada.challenge("totp")
        for _ in range(5):
            assert reason(await ada.say("totp", {"code": "000000"})) == "factor_invalid"
        assert reason(await ada.factors.begin_challenge(ADA, "totp")) == "factor_locked"
        assert reason(await ada.factors.finish_challenge(ADA, before.id, ada.code())) == "factor_locked"
        await bob.prove("totp")
        ada.clock.now += minutes * 60 - 1
        assert reason(await ada.factors.begin_challenge(ADA, "totp")) == "factor_locked"
        ada.clock.now += 1
    assert isinstance(await ada.say("recovery", {"code": ada.codes[1]}), Proof)
    await ada.prove("totp")


async def test_guesses_at_the_same_time_over_two_workers_are_counted(ada: Person, documents: SqliteDocuments) -> None:
    await ada.enrol("totp")
    other = Factors(documents, builtin("Example", "example.com", ["https://gw.example.com"]), ada.clock)
    begun = [await ada.challenge("totp") for _ in range(MOST_STEPS)]
    guesses = (
        service.finish_challenge(ADA, step.id, {"code": f"{n:06}"})
        for n, (service, step) in enumerate(zip((ada.factors, other) * 5, begun, strict=True))
    )
    found = [reason(item) for item in await asyncio.gather(*guesses)]
    assert (found.count("factor_invalid"), found.count("factor_locked")) == (5, MOST_STEPS - 5)


async def test_a_good_answer_forgets_the_wrong_ones_before_it(ada: Person) -> None:
    await ada.enrol("totp")
    for _ in range(3):
        for _ in range(4):
            assert reason(await ada.say("totp", {"code": "000000"})) == "factor_invalid"
        await ada.prove("totp")
        ada.clock.now += 30


async def test_used_codes_are_counted_as_wrong(ada: Person) -> None:
    await ada.enrol("totp")
    answer = ada.code()
    await ada.prove("totp")
    assert [reason(await ada.say("totp", answer)) for _ in range(5)] == ["factor_replayed"] * 5
    assert reason(await ada.factors.begin_challenge(ADA, "totp")) == "factor_locked"


async def test_enrolments_that_are_begun_and_begun_again_are_limited(ada: Person) -> None:
    for _ in range(20):
        await ada.begin("totp")
    assert reason(await ada.factors.begin_enrolment(ADA, "totp")) == "factor_locked"


# ---- the store, and what is said ----


async def test_a_store_that_is_down_is_no_proof(ada: Person, store: SqliteStore) -> None:
    await ada.enrol("totp")
    begun = await ada.challenge("totp")
    store._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreDown):
        await ada.factors.finish_challenge(ADA, begun.id, ada.code())
    with pytest.raises(StoreDown):
        await ada.factors.begin_challenge(ADA, "totp")


async def test_a_proof_that_cannot_be_written_is_none(
    ada: Person, documents: SqliteDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ada.enrol("totp")
    begun, put = await ada.challenge("totp"), documents.put

    async def contended(collection: str, *values: Any, **named: Any) -> bool:
        return collection != FACTORS and await put(collection, *values, **named)

    monkeypatch.setattr(documents, "put", contended)
    assert reason(await ada.factors.finish_challenge(ADA, begun.id, ada.code())) == "factor_invalid"


async def test_nothing_secret_is_in_a_repr_a_log_or_a_file(
    ada: Person, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [repr(begun := await ada.begin("totp")), repr(begun.show and ada.factors)]
    ada.secret = begun.show["secret"]
    said.append(repr(await ada.factors.finish_enrolment(ADA, begun.id, ada.code())))
    ada.clock.now += 30
    said += [repr(step := await ada.challenge("totp")), repr(await ada.say("totp", {"code": "000000"}))]
    said += [repr(await ada.prove("totp")), repr(await ada.factors.enrolled(ADA)), caplog.text]
    told = "\n".join(said)
    for secret in (ada.secret, begun.id, step.id, ada.code()["code"]):
        assert secret not in told
    for name in ("gateway.db", "gateway.db-wal"):
        content = (tmp_path / name).read_bytes()
        assert ada.secret.encode() not in content
        assert b"ada@example.com" not in content
        assert begun.id.encode() not in content


async def test_the_store_has_one_document_a_person(ada: Person, documents: SqliteDocuments) -> None:
    await ada.enrol("totp")
    await ada.enrol("webauthn", await ada.prove("totp"))
    found = await documents.get(FACTORS, ADA.handle.hex(), ada.clock())
    assert found is not None
    assert found.expires_at > ada.clock() + 100 * 365 * 86_400
    assert [item["kind"] for item in json.loads(found.value)] == ["totp", "webauthn"]
