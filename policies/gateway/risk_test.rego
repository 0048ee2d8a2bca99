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

limits := {"mfa": settings.mfa, "risk": {
	"medium_asks": ["high"],
	"reverify": 7,
	"stolen": {"cookie_theft": 6, "concurrent_use": 5},
	"revoke_subject": 15,
	"lock_account": 20,
	"no_evidence": ["network_data"],
}}

said(terms) := {
	"risk": {"level": "high", "terms": [{"name": name, "value": value} | some name, value in terms]},
	"identity": {"auth_time": 1},
	"now": 100,
}

test_a_medium_risk_asks_where_the_service_is_sensitive if {
	asked := {"risk": {"level": "medium"}, "service": {"sensitivity": "high"}, "session": {"elevated_until": null}}
	"risk_medium" in authz.challenges with input as asked with data.gateway.settings as limits
	plain := object.union(asked, {"service": {"sensitivity": "normal"}})
	found := authz.challenges with input as plain with data.gateway.settings as limits
	not "risk_medium" in found
}

test_the_terms_of_one_signal_add_up_to_a_stolen_session if {
	two := said({"cookie_theft_ja4": 4, "cookie_theft_agent": 2.5})
	authz.stolen with input as two with data.gateway.settings as limits
	found := authz.reactions with input as two with data.gateway.settings as limits
	found == {"revoke_session"}
}

test_terms_of_different_signals_do_not_make_a_stolen_session if {
	two := said({"cookie_theft_ja4": 4, "new_device": 2.5})
	found := authz.reactions with input as two with data.gateway.settings as limits
	found == set()
}

test_much_evidence_asks_for_the_whole_sign_in_unless_it_was_a_moment_ago if {
	much := said({"impossible_travel": 4, "country_change": 3})
	authz.reverifications == {"account_doubtful"} with input as much with data.gateway.settings as limits
	lately := object.union(much, {"identity": {"auth_time": 90}})
	authz.reverifications == set() with input as lately with data.gateway.settings as limits
}

test_missing_data_are_no_evidence if {
	missing := said({"network_data": 50})
	authz.reverifications == set() with input as missing with data.gateway.settings as limits
	authz.reactions == set() with input as missing with data.gateway.settings as limits
}

test_the_upper_rungs_end_every_session_and_lock_the_account if {
	authz.reactions == {"revoke_subject"} with input as said({"a": 15}) with data.gateway.settings as limits
	authz.reactions == {"revoke_subject", "lock_account"} with input as said({"a": 20}) with data.gateway.settings as limits
	authz.reactions == set() with input as said({"a": 14}) with data.gateway.settings as limits
}
