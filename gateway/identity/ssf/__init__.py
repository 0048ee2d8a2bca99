"""Shared Signals Framework: security event tokens, receiver, transmitter."""
