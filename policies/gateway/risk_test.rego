package gateway.authz_risk_test

import data.gateway.authz

test_a_high_risk_asks_for_a_fresh_second_factor if {
	asked := {"risk": {"level": "high"}, "session": {"elevated_until": 5}, "now": 10}
	"risk_high" in authz.challenges with input as asked
	found := authz.challenges with input as object.union(asked, {"now": 1})
	not "risk_high" in found
}

test_an_unknown_or_missing_level_is_blocked if {
	"risk_unavailable" in authz.blocks with input as {"risk": {"level": "extreme"}}
	"risk_unavailable" in authz.blocks with input as {}
	found := authz.blocks with input as {"risk": {"level": "low"}}
	not "risk_unavailable" in found
}
