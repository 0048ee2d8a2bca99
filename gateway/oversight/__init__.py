"""The record, metrics and the integrity of the node."""
