# The one entry point: data.gateway.authz.decision.
#
# Every other file of this package looks at one concern and adds to some of these sets:
#
#   blocks       reasons why the answer is no, whatever the person does next
#   challenges   reasons that a stronger sign-in would cure
#   obligations  what the gateway must do to a request that is allowed
#
# and to two more that few rules need:
#
#   reverifications  reasons that only the whole sign-in anew would cure, at the identity provider
#   reactions        what else happens when the answer is no: revoke_session, revoke_subject, lock_account
#
# To add a rule of your own, put a file beside this one with `package gateway.authz` and write, for instance,
#
#   blocks contains "weekend_closed" if time.weekday(input.now * 1000000000) in {"Saturday", "Sunday"}
#
# Write what must hold as a rule of its own and negate that rule (`not in_department`): then what is missing from the
# input counts as not given. A negated call or comparison is refused when the policies are loaded, for there the engines
# differ on what is missing.
#
# A request is allowed when it is admitted and nobody objects. All objections are reported, not only the first: those
# that nothing can cure stand before those that a stronger sign-in would cure, each kind in alphabetical order.
package gateway.authz

# What holds when none of the answers below does.
default decision := {"effect": "deny", "reasons": ["default_deny"]}

decision := {"effect": "login", "reasons": ["login_required"]} if {
	anonymous
} else := object.union({"effect": "deny", "reasons": array.concat(sort(blocks), sort(challenges))}, reacting) if {
	admitted
	count(blocks) > 0
} else := {"effect": "login", "reasons": sort(reverifications), "reactions": ["reverify"]} if {
	admitted
	count(reverifications) > 0
} else := {"effect": "step_up", "reasons": sort(challenges), "step_up": step_up} if {
	admitted
	count(challenges) > 0
	count(wanted_methods) > 0
} else := {"effect": "deny", "reasons": sort(challenges)} if {
	admitted
	count(challenges) > 0
} else := {"effect": "allow", "reasons": ["policy_ok"], "obligations": sort(obligations), "cache_s": 1} if {
	admitted
	count(blocks) == 0
	count(reverifications) == 0
	count(challenges) == 0
}

reacting := {"reactions": sort(reactions)} if count(reactions) > 0

reacting := {} if count(reactions) == 0

# Nobody has signed in, and the service wants to know who it is.
anonymous if {
	input.identity == null
	not scope.allow.public
	named(scope.allow)
}

# Who is looked at any further. Nobody else gets another answer than default_deny.
admitted if scope.allow.public

admitted if {
	named(scope.allow)
	input.identity.sub != ""
}
