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

second_factor(identity, settings) if {
	some method in identity.amr
	method in settings.methods
}

second_factor(identity, settings) if {
	settings.accept_silent_issuer == true
	count(identity.amr) == 0
}

fresh(identity, max_age_s) if {
	is_number(identity.auth_time)
	input.now - identity.auth_time <= max_age_s
}

challenges contains "mfa_required" if {
	scope.allow.mfa != false
	not second_factor(input.identity, data.gateway.settings.mfa)
	not elevated
}

challenges contains "mfa_stale" if {
	data.gateway.settings.mfa.max_age_s != null
	scope.allow.mfa != false
	second_factor(input.identity, data.gateway.settings.mfa)
	not fresh(input.identity, data.gateway.settings.mfa.max_age_s)
	not elevated
}
