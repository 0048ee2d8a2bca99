"""The part of `gateway check` that loads the policies."""
