# What is sensitive must not stay in a cache: the gateway says no-store on its behalf.
#
# The other obligations the gateway knows (masked JSON fields, headers, smaller bodies) are added in the same way.
package gateway.authz

obligations contains {"kind": "no_store"} if input.service.sensitivity in data.gateway.settings.no_store
