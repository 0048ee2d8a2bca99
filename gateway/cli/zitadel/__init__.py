"""`gateway zitadel`: set a Zitadel instance up, and check it."""
