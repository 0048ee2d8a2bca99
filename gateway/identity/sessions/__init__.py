"""Login sessions, their cookies and tokens, device-bound session credentials."""
