# The second factor.
#
# It is needed unless `allow.mfa` is false; the gateway fills in true on the staff plane and false on the user plane.
# What counts is listed in data.gateway.settings.mfa.methods (RFC 8176, and what identity providers say beside it).
# `max_age_s` there, a number of seconds, refuses a proof that is older; null asks for no age. A service or path may say
# both for itself: `mfa: {methods: [user], max_age_s: 300}`.
#
# A rule of your own can ask for more, by method, path, hour or risk:
#
#   mfa_needed if exporting
#   proof_methods contains {"user"} if exporting
#   proof_ages contains 300 if exporting
#
# A proof must be in every one of the sets, and no older than the least of the ages. Where no method is in all of the
# sets nothing would do, and the answer is no.
#
# Many tokens say nothing about how the person signed in (`amr` is empty): a sign-in at an outside provider, or a JWT
# access token of Zitadel that was not introspected. That is no second factor, unless `accept_silent_issuer` says so.
#
# What a person proved to the gateway itself, in a step-up, is in input.session.elevated_amr, and in input.identity.amr as
# well, until input.session.elevated_until.
package gateway.authz

mfa_needed if scope.allow.mfa != false

usual_methods := {method | some method in data.gateway.settings.mfa.methods}

own_methods := {method | some method in scope.allow.mfa.methods}

proof_methods contains own_methods if count(own_methods) > 0

proof_methods contains usual_methods if count(own_methods) == 0

proof_ages contains data.gateway.settings.mfa.max_age_s if is_number(data.gateway.settings.mfa.max_age_s)

proof_ages contains scope.allow.mfa.max_age_s if is_number(scope.allow.mfa.max_age_s)

wanted_methods := intersection(proof_methods)

# The person proved something that would do to the gateway itself, and it still counts.
proven_here if {
	input.session.elevated_until > input.now
	some method in input.session.elevated_amr
	method in wanted_methods
}

# The same, and so lately that even a high risk is content.
proven_lately if {
	proven_here
	within(input.session.elevated_at, data.gateway.settings.mfa.risk_max_age_s)
}

# Whether it was at most so many seconds ago. What lies ahead is no such time: the clock was set back since. Clocks of
# several machines may differ by a minute.
within(at, age_s) if {
	is_number(at)
	input.now - at <= age_s
	at - input.now <= 60
}

mfa_done if {
	some method in input.identity.amr
	method in wanted_methods
}

mfa_done if {
	data.gateway.settings.mfa.accept_silent_issuer == true
	count(input.identity.amr) == 0
	wanted_methods == usual_methods
}

mfa_fresh if count(proof_ages) == 0

mfa_fresh if within(input.identity.auth_time, min(proof_ages))

mfa_fresh if {
	proven_here
	within(input.session.elevated_at, min(proof_ages))
}

challenges contains "mfa_required" if {
	mfa_needed
	not mfa_done
}

challenges contains "mfa_stale" if {
	mfa_needed
	mfa_done
	not mfa_fresh
}

step_up_ages contains data.gateway.settings.mfa.step_up_max_age_s

step_up_ages contains data.gateway.settings.mfa.risk_max_age_s if "risk_high" in challenges

step_up_ages contains age if some age in proof_ages

# What a step-up has to prove, and for how long that counts.
step_up := {"methods": sort(wanted_methods), "max_age_s": min(step_up_ages)}
