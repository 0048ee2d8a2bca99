"""Second factors: their store and their lockout."""
