"""Obligations enforce what policy demands beside its effect."""
