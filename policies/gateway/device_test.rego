package gateway.authz_device_test

import data.gateway.authz

test_a_device_is_required_unless_the_scope_says_optional if {
	"device_required" in authz.blocks with input as {"device": null} with authz.scope as {"device": "required"}
	"device_required" in authz.blocks with input as {"device": {"verified": false}} with authz.scope as {"device": "required"}
	found := authz.blocks with input as {"device": null} with authz.scope as {"device": "optional"}
	not "device_required" in found
}
