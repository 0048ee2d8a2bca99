"""Zitadel: its API, events, webhooks, reconciliation."""
