package gateway.authz_sensitivity_test

import data.gateway.authz

test_what_is_sensitive_is_not_stored if {
	high := authz.obligations with input as {"service": {"sensitivity": "high"}}
	high == {{"kind": "no_store"}}
	normal := authz.obligations with input as {"service": {"sensitivity": "normal"}}
	normal == set()
}
