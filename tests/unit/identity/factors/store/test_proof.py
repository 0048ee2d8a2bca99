"""The service with its real plugins, a real store and a security key in software."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.core.reasons import Refusal
from gateway.identity.factors.store import (
    MOST_STEPS,
    STEPS,
    EnrolledFactor,
    Factors,
    Proof,
)
from plugins.factors import builtin
from tests.support.factor_world import ADA, BOB, Person, reason
from tests.support.login_world import Clock
from tests.support.webauthn_authenticator import Authenticator  # the tests of the plugins use it too


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
