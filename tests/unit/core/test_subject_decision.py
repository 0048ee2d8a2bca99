import dataclasses

import pytest

from gateway.core.decision import EFFECTS, NO_SIGNAL, Decision, Obligation, RiskReport, RiskTerm
from gateway.core.reasons import REASONS, Refusal, is_code, reason
from gateway.core.subject import Device, Identity, Role, Session


def test_a_device_as_policy_sees_it():
    assert Device("d", "hash", "ada", "people", {"disk": True}).document() == {
        "id": "d",
        "verified": True,
        "posture": {"disk": True},
        "cert_sha256": "hash",
        "owner": "ada",
        "department": "people",
    }


def test_an_identity_as_policy_sees_it_has_no_secret():
    identity = Identity(
        "https://id", "u", "jwt", "hint", 5.0, roles=(Role("r", "o"),), scopes=("s",), amr=("otp",),
        confirmation={"jkt": "thumb"},
    )  # fmt: skip
    document = identity.document()
    assert document["roles"] == [{"key": "r", "org": "o"}]
    assert (document["scopes"], document["amr"], document["auth_time"]) == (["s"], ["otp"], None)
    assert not {"session_hint", "confirmation", "expires_at"} & document.keys()


def test_a_session_has_an_age_that_is_never_negative():
    session = Session("s", 100.0, ("mtls",), 300.0)
    assert session.document(130.9)["age_s"] == 30
    assert session.document(50.0)["age_s"] == 0
    assert session.document(130.9)["bound_by"] == ["mtls"]


def test_a_risk_report_as_policy_sees_it():
    assert NO_SIGNAL.document() == {"score": 0.0, "level": "none", "terms": []}
    report = RiskReport(1.5, "low", (RiskTerm("new_country", 1.5, "first time"),))
    assert report.document()["terms"] == [{"name": "new_country", "value": 1.5, "why": "first time"}]


def test_values_cannot_be_changed():
    for value in (Decision("allow", ("policy_ok",)), Obligation("x"), NO_SIGNAL, Device("d", "h"), Refusal("x")):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
            setattr(value, dataclasses.fields(value)[0].name, "else")
    with pytest.raises(TypeError):
        Obligation("x").params["a"] = 1


def test_there_are_four_effects():
    assert {"allow", "deny", "step_up", "login"} == EFFECTS


@pytest.mark.parametrize("text", ["ok", "a_b_1", "x" * 64])
def test_a_code_is_lower_snake_case(text):
    assert is_code(text)


@pytest.mark.parametrize("text", ["", "a", "A_b", "1a", "a-b", "a b", "x" * 65, "a\n", None, 5, b"ab"])
def test_anything_else_is_no_code(text):
    assert not is_code(text)


def test_every_reason_is_a_code_with_a_status():
    for code, entry in REASONS.items():
        assert is_code(code)
        assert entry.code == code
        assert 200 <= entry.status < 600
        assert entry.what
        assert entry.fix or entry.status == 200


def test_a_code_of_a_policy_author_is_forbidden():
    assert reason("own_rule").status == 403
