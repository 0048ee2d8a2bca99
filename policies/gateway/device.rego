# The machine the request comes from.
#
# The gateway asks for a device before it asks this policy; this rule keeps the same promise where another edge has let
# a request pass without one.
package gateway.authz

blocks contains "device_required" if {
	scope.device != "optional"
	not input.device.verified == true
}
