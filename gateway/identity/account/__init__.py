"""A person's own account: sessions, factors, step-up."""
