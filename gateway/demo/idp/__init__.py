"""The development OpenID provider."""
