package gateway.authz_department_test

import data.gateway.authz

scope := {"allow": {"public": false, "departments": ["hr"]}}

test_another_department_or_none_is_blocked if {
	own := authz.blocks with input as {"identity": {"department": "hr"}} with authz.scope as scope
	not "department_mismatch" in own
	"department_mismatch" in authz.blocks with input as {"identity": {"department": "it"}} with authz.scope as scope
	"department_mismatch" in authz.blocks with input as {"identity": null} with authz.scope as scope
}
