"""OpenID Connect: relying party, discovery, id tokens, introspection, back-channel logout."""
