"""Clients of the demo and the tests: HTTP, a browser without a screen, Chromium."""
