"""`gateway check`: the configuration and everything it names, examined before it serves."""
