"""Obligations: what policy demands beside its effect."""
