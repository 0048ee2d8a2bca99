# The second factor.
#
# It is needed unless `allow.mfa` is false; the gateway fills in true on the staff plane and false on the user plane.
# What counts is listed in data.gateway.settings.mfa.methods (RFC 8176, and what identity providers say beside it).
# `max_age_s` there, a number of seconds, refuses a sign-in that is older; null asks for no age.
#
# Many tokens say nothing about how the person signed in (`amr` is empty): a sign-in at an outside provider, or a JWT
# access token of Zitadel that was not introspected. That is no second factor, unless `accept_silent_issuer` says so.
#
# A session that was stepped up a moment ago (input.session.elevated_until) has its second factor.
package gateway.authz

elevated if input.session.elevated_until > input.now

mfa_done if {
	some method in input.identity.amr
	method in data.gateway.settings.mfa.methods
}

mfa_done if {
	data.gateway.settings.mfa.accept_silent_issuer == true
	count(input.identity.amr) == 0
}

mfa_fresh if {
	is_number(input.identity.auth_time)
	input.now - input.identity.auth_time <= data.gateway.settings.mfa.max_age_s
}

challenges contains "mfa_required" if {
	scope.allow.mfa != false
	not mfa_done
	not elevated
}

challenges contains "mfa_stale" if {
	data.gateway.settings.mfa.max_age_s != null
	scope.allow.mfa != false
	mfa_done
	not mfa_fresh
	not elevated
}
