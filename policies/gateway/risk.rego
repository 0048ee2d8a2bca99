# The risk of the moment, as the gateway scores it: none, low, medium, high; and the terms that sum to its score.
#
# The ladder, from the bottom. What each rung takes is in data.gateway.settings.risk:
#
#   allow             a low risk, and a medium one where the service is not sensitive
#   step up           a high risk, and a medium one where the sensitivity is in `medium_asks`: a fresh second factor
#   reverify          evidence of `reverify` or more: the sign-in anew, with every factor, at the identity provider
#   revoke_session    a signal of at least its number in `stolen`: this session has a second holder, and ends
#   revoke_subject    evidence of `revoke_subject` or more: every session of the person ends
#   lock_account      evidence of `lock_account` or more: the identity provider locks the account
#
# Evidence is the score without the terms in `no_evidence`: missing data ask for a proof, and never end anything. No
# proof cures the upper three rungs. A level that this policy does not know, or none at all, is a no.
package gateway.authz

risk_known if input.risk.level in {"none", "low", "medium", "high"}

blocks contains "risk_unavailable" if not risk_known

challenges contains "risk_high" if {
	input.risk.level == "high"
	not proven_lately
}

challenges contains "risk_medium" if {
	input.risk.level == "medium"
	input.service.sensitivity in data.gateway.settings.risk.medium_asks
	not proven_lately
}

step_up_ages contains data.gateway.settings.mfa.risk_max_age_s if "risk_medium" in challenges

evidence := sum([term.value | some term in input.risk.terms; term.name in evident])

evident := {term.name | some term in input.risk.terms} - {name | some name in data.gateway.settings.risk.no_evidence}

# What one signal says: the sum of its terms, which are called like it, or begin with its name.
said_by(signal) := sum([term.value | some term in input.risk.terms; is_of(term.name, signal)])

is_of(name, signal) if name == signal

is_of(name, signal) if startswith(name, concat("", [signal, "_"]))

signed_in_lately if within(input.identity.auth_time, data.gateway.settings.mfa.risk_max_age_s)

reverifications contains "account_doubtful" if {
	evidence >= data.gateway.settings.risk.reverify
	not signed_in_lately
}

stolen if {
	some signal, least in data.gateway.settings.risk.stolen
	said_by(signal) >= least
}

blocks contains "session_stolen" if stolen

reactions contains "revoke_session" if stolen

blocks contains "account_attacked" if evidence >= data.gateway.settings.risk.revoke_subject

reactions contains "revoke_subject" if evidence >= data.gateway.settings.risk.revoke_subject

blocks contains "account_locked" if evidence >= data.gateway.settings.risk.lock_account

reactions contains "lock_account" if evidence >= data.gateway.settings.risk.lock_account
