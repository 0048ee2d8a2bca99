# The staff plane and the user plane have different accounts.
#
# data.gateway.settings.planes[plane].orgs lists the organisations whose accounts belong to a plane; an empty list
# accepts every one. A plane that is not listed accepts nobody. (Which issuers a service accepts is said in its own
# configuration.)
package gateway.authz

plane_fits if {
	orgs := data.gateway.settings.planes[input.service.plane].orgs
	org_fits(input.identity, orgs)
}

org_fits(_, orgs) if count(orgs) == 0

org_fits(identity, orgs) if identity.org in orgs

blocks contains "plane_mismatch" if {
	not plane_fits
	not scope.allow.public
}
