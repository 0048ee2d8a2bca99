"""Ports met by SQLite, Redis and HTTP."""
