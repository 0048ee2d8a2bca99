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

may_change if holds_one_of(scope.allow.roles)

may_change if {
	count(scope.allow.roles) == 0
	count(scope.allow.read_only_roles) == 0
}

may_look if holds_one_of(scope.allow.read_only_roles)

# A WebSocket begins with a GET but carries whatever the client sends.
looking if {
	input.request.method in {"GET", "HEAD"}
	input.request.protocol != "websocket"
}

blocks contains "role_missing" if {
	not may_change
	not may_look
	not scope.allow.public
}

blocks contains "read_only" if {
	not may_change
	not looking
	may_look
	not scope.allow.public
}
