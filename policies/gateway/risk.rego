# The risk of the moment, as the gateway scores it: none, low, medium, high.
#
# A high risk asks for a fresh second factor. A level that this policy does not know, or none at all, is a no.
package gateway.authz

blocks contains "risk_unavailable" if not input.risk.level in {"none", "low", "medium", "high"}

challenges contains "risk_high" if {
	input.risk.level == "high"
	not elevated
}
