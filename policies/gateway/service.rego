# Which part of the configuration speaks about this request.
#
# The gateway hands over every service of its configuration as data.gateway.services[name]:
#
#   {"plane", "department", "sensitivity", "device", "allow", "paths": {"": {"device", "allow"}, "/export": {...}}}
#
# input.service.rule names the path rule that matched; "" is the service's own. Every default is filled in already:
# `allow` has public, roles, departments (the service's own where none is listed), countries, mfa and read_only_roles.
# A service or path that the configuration does not know has no scope, and nothing is allowed there.
package gateway.authz

scope := service.paths[input.service.rule] if service := data.gateway.services[input.service.name]

# Whether the configuration says who may enter. A service that names nobody is closed.
named(allow) if count(allow.roles) > 0

named(allow) if count(allow.departments) > 0

named(allow) if count(allow.read_only_roles) > 0
