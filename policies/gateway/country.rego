# The country the request comes from (ISO 3166-1 alpha-2). Where a list is given, an unknown country is outside of it.
package gateway.authz

in_country if input.client.country in scope.allow.countries

blocks contains "country_blocked" if {
	count(scope.allow.countries) > 0
	not in_country
}
