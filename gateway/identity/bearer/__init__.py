"""Bearer tokens and DPoP: access tokens of API calls."""
