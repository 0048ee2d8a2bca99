"""The service with its real plugins, a real store and a security key in software."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyotp
import pytest

from gateway.adapters.sqlite.documents import SqliteDocuments
from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import Refusal
from gateway.identity.factors.store import (
    FACTORS,
    MOST_FACTORS,
    MOST_STEPS,
    EnrolledFactor,
    Factors,
    Proof,
)
from plugins.factors import builtin
from tests.support.factor_world import ADA, BOB, Person, reason
from tests.support.webauthn_authenticator import Authenticator  # the tests of the plugins use it too


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
