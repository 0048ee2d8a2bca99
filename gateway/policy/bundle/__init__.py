"""The policy bundle: modules and data, loaded and checked."""
