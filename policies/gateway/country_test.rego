package gateway.authz_country_test

import data.gateway.authz

scope := {"allow": {"public": true, "countries": ["DE"]}}

test_a_country_outside_of_the_list_and_an_unknown_one_are_blocked if {
	home := authz.blocks with input as {"client": {"country": "DE"}} with authz.scope as scope
	not "country_blocked" in home
	"country_blocked" in authz.blocks with input as {"client": {"country": "US"}} with authz.scope as scope
	"country_blocked" in authz.blocks with input as {"client": {"country": null}} with authz.scope as scope
}
