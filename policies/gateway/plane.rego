# The staff plane and the user plane have different accounts.
#
# data.gateway.settings.planes[plane] lists the issuers and the organisations whose accounts belong to a plane; an
# empty list accepts every one. A plane that is not listed accepts nobody.
package gateway.authz

belongs(identity, plane) if {
	fits(identity.iss, plane.issuers)
	fits(identity.org, plane.orgs)
}

fits(_, names) if count(names) == 0

fits(name, names) if name in names

blocks contains "plane_mismatch" if {
	not scope.allow.public
	not belongs(input.identity, data.gateway.settings.planes[input.service.plane])
}
