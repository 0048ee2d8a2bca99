package gateway.authz_mfa_test

import data.gateway.authz

scope := {"allow": {"mfa": true}}

settings := {"mfa": {"methods": ["mfa"], "accept_silent_issuer": false, "max_age_s": 60}}

by(amr, auth_time) := {
	"identity": {"amr": amr, "auth_time": auth_time},
	"session": {"elevated_until": null},
	"risk": {"level": "none"},
	"now": 100,
}

challenges(asked) := found if {
	found := authz.challenges with input as asked with authz.scope as scope with data.gateway.settings as settings
}

test_a_second_factor_is_needed if challenges(by(["pwd"], 90)) == {"mfa_required"}

test_an_empty_amr_is_no_second_factor if challenges(by([], 90)) == {"mfa_required"}

test_a_second_factor_must_be_fresh if {
	challenges(by(["pwd", "mfa"], 90)) == set()
	challenges(by(["pwd", "mfa"], 30)) == {"mfa_stale"}
	challenges(by(["pwd", "mfa"], null)) == {"mfa_stale"}
}

test_a_step_up_counts_until_its_end if {
	challenges(object.union(by([], null), {"session": {"elevated_until": 101}})) == set()
	challenges(object.union(by([], null), {"session": {"elevated_until": 100}})) == {"mfa_required"}
}
