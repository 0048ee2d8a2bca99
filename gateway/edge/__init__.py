"""Where connections end and begin."""
