"""A policy-as-code zero-trust access gateway."""

__version__ = "0.1.0"
