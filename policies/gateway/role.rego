# What the person may do: roles, and roles that may only look.
#
# A role is written "role", in whatever organisation it was granted, or "org/role". "*" stands for everybody who has
# signed in. Holders of a role in `read_only_roles` may look (GET and HEAD); where they hold one of `roles` as well,
# the stronger one counts. Where only `read_only_roles` are given, nobody may change anything.
package gateway.authz

holds_one_of(names) if {
	some role in input.identity.roles
	role.key in names
}

holds_one_of(names) if {
	some role in input.identity.roles
	concat("/", [role.org, role.key]) in names
}

holds_one_of(names) if "*" in names

may_change(allow) if holds_one_of(allow.roles)

may_change(allow) if {
	count(allow.roles) == 0
	count(allow.read_only_roles) == 0
}

# A WebSocket begins with a GET but carries whatever the client sends.
looks(request) if {
	request.method in {"GET", "HEAD"}
	request.protocol != "websocket"
}

blocks contains "role_missing" if {
	not scope.allow.public
	not may_change(scope.allow)
	not holds_one_of(scope.allow.read_only_roles)
}

blocks contains "read_only" if {
	not looks(input.request)
	not scope.allow.public
	not may_change(scope.allow)
	holds_one_of(scope.allow.read_only_roles)
}
