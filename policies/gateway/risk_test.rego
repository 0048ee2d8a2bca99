package gateway.authz_risk_test

import data.gateway.authz

settings := {"mfa": {"methods": ["otp"], "risk_max_age_s": 20}}

test_a_high_risk_asks_for_a_fresh_second_factor if {
	proven := {"elevated_until": 50, "elevated_at": 10, "elevated_amr": ["otp"]}
	asked := {"risk": {"level": "high"}, "session": proven, "now": 31}
	"risk_high" in authz.challenges with input as asked with data.gateway.settings as settings
	sooner := object.union(asked, {"now": 30})
	found := authz.challenges with input as sooner with data.gateway.settings as settings
	not "risk_high" in found
}

test_an_unknown_or_missing_level_is_blocked if {
	"risk_unavailable" in authz.blocks with input as {"risk": {"level": "extreme"}}
	"risk_unavailable" in authz.blocks with input as {}
	found := authz.blocks with input as {"risk": {"level": "low"}}
	not "risk_unavailable" in found
}
