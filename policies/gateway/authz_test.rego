# Run with: opa test policies/gateway policies/data
package gateway.authz_test

import data.gateway.authz

allow := {"public": false, "roles": ["staff"], "departments": [], "countries": [], "mfa": true, "read_only_roles": []}

services := {"hr": {"paths": {"": {"device": "required", "allow": allow}}}}

person := {
	"sub": "1",
	"org": "acme",
	"department": "hr",
	"roles": [{"key": "staff", "org": "acme"}],
	"amr": ["mfa"],
	"auth_time": 1000,
}

asked := {
	"request": {"method": "GET", "protocol": "h2"},
	"service": {"name": "hr", "rule": "", "plane": "staff", "sensitivity": "normal"},
	"device": {"verified": true},
	"identity": person,
	"session": {"elevated_until": null, "elevated_at": null, "elevated_amr": []},
	"risk": {"level": "none"},
	"client": {"country": null},
	"now": 2000,
}

test_a_person_who_meets_every_rule_is_allowed if {
	answer := authz.decision with input as asked with data.gateway.services as services
	answer == {"effect": "allow", "reasons": ["policy_ok"], "obligations": [], "cache_s": 1}
}

test_without_a_person_the_answer_is_login if {
	nobody := object.union(asked, {"identity": null})
	answer := authz.decision with input as nobody with data.gateway.services as services
	answer == {"effect": "login", "reasons": ["login_required"]}
}

test_a_stronger_sign_in_is_asked_for_when_nothing_else_is_wrong if {
	weak := object.union(asked, {"identity": {"amr": ["pwd"]}})
	answer := authz.decision with input as weak with data.gateway.services as services
	answer.effect == "step_up"
	answer.reasons == ["mfa_required"]
	answer.step_up.max_age_s == 900
	"otp" in answer.step_up.methods
}

test_where_no_proof_would_do_the_answer_is_no if {
	weak := object.union(asked, {"identity": {"amr": ["pwd"]}})
	answer := authz.decision with input as weak
		with data.gateway.services as services
		with data.gateway.settings.mfa.methods as []
	answer == {"effect": "deny", "reasons": ["mfa_required"]}
}

test_every_objection_is_reported_and_the_incurable_ones_come_first if {
	bad := object.union(asked, {"identity": {"roles": [], "amr": []}, "device": null, "risk": {"level": "high"}})
	answer := authz.decision with input as bad with data.gateway.services as services
	answer == {"effect": "deny", "reasons": ["device_required", "role_missing", "mfa_required", "risk_high"]}
}

test_an_unknown_service_is_denied if {
	answer := authz.decision with input as asked with data.gateway.services as {}
	answer == {"effect": "deny", "reasons": ["default_deny"]}
}

test_an_empty_input_is_denied if {
	answer := authz.decision with input as {} with data.gateway.services as services
	answer == {"effect": "deny", "reasons": ["default_deny"]}
}
