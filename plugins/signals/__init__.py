"""Signals raise the risk."""
