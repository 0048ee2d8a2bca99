"""Whatever an engine answers: a decision that says the same, or a refusal; never an exception."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.decision import Decision
from gateway.core.reasons import Refusal
from gateway.policy.contract import parse_answer

CODES = st.from_regex(r"[a-z][a-z0-9_]{1,63}", fullmatch=True)
WORDS = st.sampled_from(["effect", "reasons", "obligations", "cache_s", "kind", "allow", "deny", "policy_ok", "login"])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.text(max_size=6), st.binary(max_size=3), CODES
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, st.text(max_size=4), st.integers()), inner)
    ),
    max_leaves=12,
)
VALID = st.fixed_dictionaries(
    {
        "effect": st.sampled_from(["allow", "deny", "step_up", "login"]),
        "reasons": st.lists(CODES, min_size=1, max_size=32),
    },
    optional={
        "obligations": st.lists(
            st.dictionaries(st.text(max_size=5), JSON, max_size=3).flatmap(
                lambda params: st.text(min_size=1, max_size=8).map(lambda kind: {**params, "kind": kind})
            ),
            max_size=4,
        ),
        "cache_s": st.integers(0, 60),
    },
)


@given(JSON)
def test_anything_is_a_decision_or_a_refusal(raw: object) -> None:
    assert isinstance(parse_answer(raw), Decision | Refusal)


@given(VALID)
def test_a_valid_answer_says_the_same_afterwards(raw: dict[str, Any]) -> None:
    decision = parse_answer(raw)
    assert isinstance(decision, Decision)
    assert decision.effect == raw["effect"]
    assert list(decision.reasons) == raw["reasons"]
    obligations = [{"kind": each.kind, **each.params} for each in decision.obligations]
    assert repr(sorted(map(repr, map(sorted_items, obligations)))) == repr(
        sorted(map(repr, map(sorted_items, raw.get("obligations", []))))
    )
    assert decision.cache_s == raw.get("cache_s", 0)


@given(VALID, st.sampled_from(["effect", "reasons", "obligations", "cache_s", "surplus"]), JSON)
def test_one_broken_member_never_becomes_another_effect(raw: dict[str, Any], member: str, value: object) -> None:
    decision = parse_answer({**raw, member: value})
    if isinstance(decision, Decision):
        assert member != "surplus"
        assert decision.effect == (value if member == "effect" else raw["effect"])
    else:
        assert decision.reason == "policy_malformed"


def sorted_items(entry: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(entry.items(), key=lambda item: item[0])
