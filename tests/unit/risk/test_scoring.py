from __future__ import annotations

from gateway.core.decision import RiskTerm
from gateway.risk.scoring import dedupe_novelty


def test_what_is_new_at_a_sign_in_counts_once() -> None:
    network, device, theft = RiskTerm("new_network", 1.0), RiskTerm("new_device", 1.5), RiskTerm("cookie_theft", 6.0)
    assert dedupe_novelty([network, device, theft], []) == [network, device, theft]
    assert dedupe_novelty([network, device, theft], [RiskTerm("login_asn", 5.0)]) == [theft]
    assert [(term.name, term.value) for term in dedupe_novelty([network, device], [RiskTerm("login_asn", 1.2)])] == [
        ("new_device", 1.3)
    ]
