# The staff plane and the user plane have different accounts.
#
# data.gateway.settings.planes[plane].orgs lists the organisations whose accounts belong to a plane; an empty list
# accepts every one. A plane that is not listed accepts nobody. (Which issuers a service accepts is said in its own
# configuration.)
package gateway.authz

belongs(_, plane) if count(plane.orgs) == 0

belongs(identity, plane) if identity.org in plane.orgs

blocks contains "plane_mismatch" if {
	not scope.allow.public
	not belongs(input.identity, data.gateway.settings.planes[input.service.plane])
}
