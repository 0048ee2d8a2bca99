package gateway.authz_role_test

import data.gateway.authz

scope := {"allow": {"public": false, "roles": ["acme/admin"], "departments": [], "countries": [], "read_only_roles": ["viewer"]}}

holder(key, org, method) := {
	"identity": {"sub": "1", "roles": [{"key": key, "org": org}]},
	"request": {"method": method, "protocol": "h2"},
}

test_the_role_counts_in_its_organisation_alone if {
	mine := authz.blocks with input as holder("admin", "acme", "POST") with authz.scope as scope
	not "role_missing" in mine
	"role_missing" in authz.blocks with input as holder("admin", "other", "POST") with authz.scope as scope
}

test_a_read_only_role_looks_and_does_not_change if {
	looks := authz.blocks with input as holder("viewer", "", "GET") with authz.scope as scope
	not "read_only" in looks
	"read_only" in authz.blocks with input as holder("viewer", "", "POST") with authz.scope as scope
}
