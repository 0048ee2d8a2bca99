"""State in one SQLite file of this machine."""
