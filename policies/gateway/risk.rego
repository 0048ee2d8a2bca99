# The risk of the moment, as the gateway scores it: none, low, medium, high.
#
# A high risk asks for a fresh second factor. A level that this policy does not know, or none at all, is a no.
package gateway.authz

risk_known if input.risk.level in {"none", "low", "medium", "high"}

blocks contains "risk_unavailable" if not risk_known

challenges contains "risk_high" if {
	input.risk.level == "high"
	not proven_lately
}
