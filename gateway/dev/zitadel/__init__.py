"""Zitadel as the gateway sees it, on loopback: logins, sessions, users, events, actions, and its faults."""
