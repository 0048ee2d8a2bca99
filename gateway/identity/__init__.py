"""Who and what is asking."""
