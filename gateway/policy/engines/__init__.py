"""Policy engines: embedded and server."""
