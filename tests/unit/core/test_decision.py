"""Decisions and risk reports: frozen values."""

import dataclasses

import pytest

from gateway.core.decision import EFFECTS, NO_SIGNAL, Decision, Obligation, RiskReport, RiskTerm
from gateway.core.reasons import Refusal
from gateway.core.subject import Device


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
