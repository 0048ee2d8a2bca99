package gateway.authz_service_test

import data.gateway.authz

services := {"hr": {"paths": {"": {"device": "required"}, "/export": {"device": "optional"}}}}

test_the_path_rule_that_matched_is_the_scope if {
	own := authz.scope with input as {"service": {"name": "hr", "rule": ""}} with data.gateway.services as services
	own.device == "required"
	part := authz.scope with input as {"service": {"name": "hr", "rule": "/export"}} with data.gateway.services as services
	part.device == "optional"
}

test_an_unknown_path_has_no_scope if {
	not authz.scope with input as {"service": {"name": "hr", "rule": "/x"}} with data.gateway.services as services
}

test_a_service_that_names_nobody_is_not_named if {
	empty := {"roles": [], "departments": [], "read_only_roles": []}
	found := [1 | authz.named(empty)]
	count(found) == 0
}
