from __future__ import annotations

import json
import re
from typing import Any

import pytest
from argon2.low_level import Type, hash_secret_raw

from gateway.core.factors import FactorOwner, FactorStep
from gateway.core.reasons import Refusal
from plugins.factors import recovery
from plugins.factors.recovery import Recovery

ADA = FactorOwner("https://id.example.com", "ada")
PLUGIN = Recovery()
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def step() -> FactorStep:
    return PLUGIN.enrol_begin(ADA, [], NOW)


@pytest.fixture
def state(step: FactorStep) -> Any:
    return json.loads(json.dumps(PLUGIN.enrol_finish(step.pending, [], {"saved": True}, NOW)))


def prove(state: Any, code: Any) -> Any:
    return PLUGIN.challenge_finish({}, [state], {"code": code}, NOW)


def test_there_are_ten_codes_of_eighty_bits_in_groups(step: FactorStep) -> None:
    codes = step.show["codes"]
    assert len(set(codes)) == 10
    assert all(re.fullmatch("[0-9a-hjkmnp-tv-z]{4}(-[0-9a-hjkmnp-tv-z]{4}){3}", code) for code in codes)
    assert len(recovery._ALPHABET) ** 16 == 2**80


def test_no_code_is_kept(step: FactorStep) -> None:
    kept = json.dumps(step.pending)
    for code in step.show["codes"]:
        assert code not in kept
        assert code.replace("-", "") not in kept


def test_the_hash_is_argon2id_with_the_stated_cost(step: FactorStep) -> None:
    salt = recovery.b64decode(step.pending["salt"])
    assert len(salt) == 16
    code = step.show["codes"][3].replace("-", "").encode()
    digest = hash_secret_raw(code, salt, time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, type=Type.ID)
    assert recovery.b64decode(step.pending["codes"][3]["hash"]) == digest


def test_codes_are_enrolled_once_they_are_saved(step: FactorStep, state: Any) -> None:
    assert PLUGIN.describe(state) == {"left": 10}
    for answer in ({}, {"saved": "yes"}, {"saved": 1}, {"code": step.show["codes"][0]}):
        assert PLUGIN.enrol_finish(step.pending, [], answer, NOW).reason == "factor_invalid"


def test_every_code_works_once(step: FactorStep, state: Any) -> None:
    for used, code in enumerate(step.show["codes"], 1):
        found = prove(state, code)
        assert (found.index, found.amr) == (0, ("recovery",))
        state = found.state
        assert PLUGIN.describe(state) == {"left": 10 - used}
        assert prove(state, code).reason == "factor_replayed"


def test_a_state_is_not_changed_in_place(step: FactorStep, state: Any) -> None:
    before = json.dumps(state)
    prove(state, step.show["codes"][0])
    assert json.dumps(state) == before


def test_the_way_a_code_is_written_does_not_matter(step: FactorStep, state: Any) -> None:
    code = step.show["codes"][0]
    for written in (code.upper(), code.replace("-", ""), code.replace("-", " "), f" {code} ", code.replace("0", "O")):
        assert not isinstance(prove(state, written), Refusal), written
    assert not isinstance(prove(state, code.replace("1", "l").replace("0", "o")), Refusal)


@pytest.mark.parametrize(
    "code", [None, 1, "", "-", "0000-0000-0000-0000", "0" * 15, "0" * 17, "u" * 16, "é" * 16, "0" * 100_000, ["0"]]
)
def test_what_is_no_code_of_the_set_is_refused(state: Any, code: Any) -> None:
    assert prove(state, code) == Refusal("factor_invalid")


def test_an_answer_costs_one_hash(step: FactorStep, state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*values: Any, **named: Any) -> bytes:
        calls.append(values)
        return hash_secret_raw(*values, **named)

    monkeypatch.setattr(recovery, "hash_secret_raw", counted)
    for code in ("0" * 16, step.show["codes"][9], step.show["codes"][0]):
        prove(state, code)
    assert len(calls) == 3


def test_a_set_that_was_made_at_another_cost_still_works(step: FactorStep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_COST", {"time_cost": 1, "memory_cost": 64, "parallelism": 1})
    cheap = PLUGIN.enrol_begin(ADA, [], NOW)
    monkeypatch.undo()
    assert not isinstance(prove(cheap.pending, cheap.show["codes"][0]), Refusal)
