package gateway.authz_mfa_test

import data.gateway.authz

plain := {"allow": {"mfa": true}}

strict := {"allow": {"mfa": {"methods": ["user"], "max_age_s": 30}}}

settings := {"mfa": {
	"methods": ["mfa", "otp", "user"],
	"accept_silent_issuer": false,
	"max_age_s": 60,
	"step_up_max_age_s": 900,
	"risk_max_age_s": 20,
}}

none := {"elevated_until": null, "elevated_at": null, "elevated_amr": []}

by(amr, auth_time) := {
	"identity": {"amr": amr, "auth_time": auth_time},
	"session": none,
	"risk": {"level": "none"},
	"now": 100,
}

stepped_up(amr, at, until) := {
	"identity": {"amr": array.concat(["pwd"], amr), "auth_time": 0},
	"session": {"elevated_until": until, "elevated_at": at, "elevated_amr": amr},
	"risk": {"level": "none"},
	"now": 100,
}

challenges(asked) := found if {
	found := authz.challenges with input as asked with authz.scope as plain with data.gateway.settings as settings
}

strict_challenges(asked) := found if {
	found := authz.challenges with input as asked with authz.scope as strict with data.gateway.settings as settings
}

test_a_second_factor_is_needed if challenges(by(["pwd"], 90)) == {"mfa_required"}

test_none_is_needed_where_the_configuration_says_so if {
	open := {"allow": {"mfa": false}}
	authz.challenges == set() with input as by(["pwd"], 90) with authz.scope as open with data.gateway.settings as settings
}

test_an_empty_amr_is_no_second_factor if challenges(by([], 90)) == {"mfa_required"}

test_a_second_factor_must_be_fresh if {
	challenges(by(["pwd", "mfa"], 90)) == set()
	challenges(by(["pwd", "mfa"], 30)) == {"mfa_stale"}
	challenges(by(["pwd", "mfa"], null)) == {"mfa_stale"}
}

test_a_step_up_counts_until_its_end if {
	challenges(stepped_up(["otp"], 90, 101)) == set()
	challenges(stepped_up(["otp"], 90, 100)) == {"mfa_stale"}
	challenges(stepped_up(["otp"], 30, 101)) == {"mfa_stale"}
}

test_a_step_up_counts_for_what_it_proved if {
	challenges(stepped_up(["recovery"], 90, 101)) == {"mfa_required"}
	strict_challenges(stepped_up(["otp"], 90, 101)) == {"mfa_required"}
	strict_challenges(stepped_up(["user", "hwk"], 90, 101)) == set()
	strict_challenges(stepped_up(["user", "hwk"], 69, 101)) == {"mfa_stale"}
}

test_an_old_factor_is_not_made_young_by_another_one if {
	weak := object.union(stepped_up(["otp"], 90, 101), {"identity": {"amr": ["user", "otp"]}})
	strict_challenges(weak) == {"mfa_stale"}
}

test_a_silent_issuer_is_no_proof_of_a_special_method if {
	trusting := object.union(settings, {"mfa": {"accept_silent_issuer": true}})
	silent := by([], 90)
	authz.challenges == set() with input as silent with authz.scope as plain with data.gateway.settings as trusting
	found := authz.challenges with input as silent with authz.scope as strict with data.gateway.settings as trusting
	found == {"mfa_required"}
}

test_a_step_up_says_what_to_prove if {
	asked := by(["pwd"], 90)
	usual := authz.step_up with input as asked with authz.scope as plain with data.gateway.settings as settings
	usual == {"methods": ["mfa", "otp", "user"], "max_age_s": 60}
	special := authz.step_up with input as asked with authz.scope as strict with data.gateway.settings as settings
	special == {"methods": ["user"], "max_age_s": 30}
}

test_a_time_that_lies_ahead_is_not_lately if {
	authz.within(90, 30) with input as {"now": 100}
	authz.within(159, 30) with input as {"now": 100}
	not authz.within(161, 30) with input as {"now": 100}
	not authz.within(69, 30) with input as {"now": 100}
	not authz.within(null, 30) with input as {"now": 100}
}
