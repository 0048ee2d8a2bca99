"""This node: quarantine."""
