"""Rego: engines, bundles, the strict parser of their answers."""
