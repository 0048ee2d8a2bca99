package gateway.authz_plane_test

import data.gateway.authz

scope := {"allow": {"public": false}}

settings := {"planes": {"staff": {"orgs": ["acme"]}, "user": {"orgs": []}}}

blocked(plane, org) := {code | some code in found; code == "plane_mismatch"} if {
	asked := {"identity": {"org": org}, "service": {"plane": plane}}
	found := authz.blocks with input as asked with authz.scope as scope with data.gateway.settings as settings
}

test_an_account_belongs_to_the_planes_of_its_organisation if {
	count(blocked("staff", "acme")) == 0
	count(blocked("staff", "customers")) == 1
	count(blocked("user", "customers")) == 0
}

test_a_plane_that_is_not_listed_accepts_nobody if count(blocked("moon", "acme")) == 1
